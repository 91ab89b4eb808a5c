/**
 * The server of `vhostd web`.
 *
 * | request                    | answer                                                    |
 * | -------------------------- | --------------------------------------------------------- |
 * | `GET /TOKEN/`              | the page                                                  |
 * | `GET /TOKEN/…ts`, `…css`   | its files                                                 |
 * | `GET /TOKEN/events`        | the state of all devices and its changes, as server-sent events |
 * | `GET /TOKEN/devices/ID/N`  | what the device's control socket answers to `GET /N`      |
 * | `POST /TOKEN/devices/ID/N` | the same for a command, with `--control`                  |
 *
 * @module
 */

import { DeviceHub } from "./device_hub.ts";
import { textOf } from "./lines.ts";
import { PageFiles } from "./page_files.ts";
import { type Expected, MAX_BODY_BYTES, refusalOf } from "./refusal.ts";

/** Number of browsers that get events at a time. */
export const MAX_BROWSERS = 32;

/** Number of requests that are answered at the same time, besides events. */
const MAX_REQUESTS = 64;

/** The longest answer in JSON, in bytes. */
const MAX_ANSWER_BYTES = 2 ** 24;

/** Bytes of events that wait for a browser; one that takes them too slowly gets the state again. */
const MAX_WAITING_BYTES = 2 ** 22;

/** Time for which the answer to a query is good for other browsers too. */
const ANSWER_AGE_MS = 100;

/** Time for a device to answer, and for a body to come. */
const ANSWER_TIMEOUT_MS = 5_000;

/** Time for browsers to take what was sent to them when the server ends. */
const CLOSING_MS = 500;

/** Settings of a {@linkcode WebServer}. */
export interface WebServerOptions {
  hostname: string;
  port: number;
  control: boolean;
  /** Control sockets, and directories of them. */
  paths: readonly string[];
  /**
   * Prints a line for the person who runs the server.
   *
   * @default {Nothing is printed}
   */
  log?(message: string): void;
}

/** A running server. */
export class WebServer implements AsyncDisposable {
  /** The URL of the page, with the token. */
  readonly url: string;
  readonly #expected: Expected;
  readonly #files: PageFiles;
  readonly #hub: DeviceHub;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #browsers = new Set<ReadableStreamDefaultController<Uint8Array>>();
  /** Answers to queries, by device and name. */
  readonly #answers = new Map<string, { response: Response; until: number }>();
  #requests = 0;
  readonly #ending = new AbortController();

  private constructor(
    files: PageFiles,
    { hostname, port, control, paths, log = () => {} }: WebServerOptions,
  ) {
    this.#files = files;
    this.#hub = new DeviceHub(paths, {
      ...{ control, log },
      servePanel: (url) => files.servePanel(url),
    });
    const token = crypto.getRandomValues(new Uint8Array(16))
      .toBase64({ alphabet: "base64url", omitPadding: true });
    // No cross-origin-opener-policy: other sites cannot open the page anyway (refusal.ts), and a
    // browser would start another process for it before the first paint
    this.#headers = {
      "content-security-policy": [
        "default-src 'none'",
        `script-src 'self' ${files.inline.script}`,
        `style-src 'self' ${files.inline.style}`,
        ...["connect-src 'self'", "img-src data:"],
        ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
      ].join("; "),
      "cache-control": "no-store",
      "cross-origin-resource-policy": "same-origin",
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
    };
    this.#server = Deno.serve({
      ...{ hostname, port },
      onListen() {},
      onError: () => this.#text(500, "The page's server failed"),
    }, (request) => this.#answer(request));
    const { addr } = this.#server;
    this.#expected = { token, hostname, port: addr.port, control };
    const name = hostname.includes(":") ? `[${hostname}]` : hostname;
    this.url = `http://${name}:${addr.port}/${token}/`;
  }

  /**
   * Starts the server.
   *
   * @throws {Error} When it cannot listen, or the page's libraries cannot be had.
   */
  static async start(options: WebServerOptions): Promise<WebServer> {
    return new WebServer(await PageFiles.open(), options);
  }

  /** Ends all connections but that of a browser that does not read, and leaves the devices alone. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#hub.stop();
    this.#ending.abort();
    for (const browser of this.#browsers) browser.close();
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, CLOSING_MS);
    await Promise.race([this.#server.shutdown(), late.promise]);
    clearTimeout(timer);
    this.#hub.stop(); // A last request may have started it again
  }

  async #answer(request: Request): Promise<Response> {
    const refusal = refusalOf(request, this.#expected);
    if (refusal !== undefined) return this.#text(refusal.status, refusal.why);
    const path = new URL(request.url).pathname.slice(this.#expected.token.length + 2);
    if (path === "events") return this.#events(request);
    if (this.#requests >= MAX_REQUESTS) {
      return this.#text(503, `Expected at most ${MAX_REQUESTS} requests at a time; try again`);
    }
    this.#requests++;
    try {
      const [, id, name] = /^devices\/([\w-]+)\/([\w-]+)$/.exec(path) ?? [];
      if (id !== undefined) return await this.#ask(request, id, name);
      if (path === "") this.#hub.prepare();
      const file = request.method === "POST" ? undefined : await this.#files.file(path);
      if (file === undefined) return this.#text(404, "There is no such file");
      return this.#response(file.text, 200, `${file.type}; charset=utf-8`);
    } finally {
      this.#requests--;
    }
  }

  /** The state, then its changes. */
  #events({ method }: Request): Response {
    if (method !== "GET") return this.#text(405, "Expected GET");
    if (this.#browsers.size >= MAX_BROWSERS) {
      return this.#text(503, `Expected at most ${MAX_BROWSERS} browsers; close one`);
    }
    const encoder = new TextEncoder();
    let browser: ReadableStreamDefaultController<Uint8Array>;
    let unlisten = () => {};
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => {
        browser = controller;
        this.#browsers.add(controller);
        let isStale = true;
        const send = (changes: string) => {
          if (controller.desiredSize! <= 0) {
            isStale = true;
            return;
          }
          const json = isStale ? JSON.stringify(this.#hub.state) : changes;
          isStale = false;
          controller.enqueue(encoder.encode(`data: ${json}\n\n`));
        };
        unlisten = this.#hub.listen(send);
        send("");
      },
      cancel: () => {
        this.#browsers.delete(browser);
        unlisten();
      },
    }, { highWaterMark: MAX_WAITING_BYTES, size: (bytes) => bytes?.length ?? 0 });
    return this.#response(stream, 200, "text/event-stream");
  }

  /** Asks a device. */
  async #ask(request: Request, id: string, name: string): Promise<Response> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), ANSWER_TIMEOUT_MS);
    const signal = AbortSignal.any([late.signal, this.#ending.signal]);
    let answer: Response | undefined;
    try {
      answer = request.method === "POST"
        ? await this.#command(request, id, name, signal)
        : await this.#query(id, name, signal);
    } catch (error) {
      if (error instanceof RangeError) return this.#text(413, error.message);
      return this.#text(502, "The device does not answer");
    } finally {
      clearTimeout(timer);
    }
    if (answer === undefined) return this.#text(404, "There is no such device or request");
    // Nothing that a browser would run or show as a page
    const given = answer.headers.get("content-type") ?? "";
    const isPlain = /^(application\/json|text\/plain)\b/.test(given);
    const type = isPlain ? given : "application/octet-stream";
    return this.#response(answer.body, answer.status, type);
  }

  async #command(
    request: Request,
    id: string,
    name: string,
    signal: AbortSignal,
  ): Promise<Response | undefined> {
    const late = Promise.withResolvers<never>();
    signal.addEventListener("abort", () => late.reject(new Error("It takes too long")));
    const body = await Promise.race([request.bytes(), late.promise]);
    if (body.length > MAX_BODY_BYTES) throw new RangeError("The body is too large");
    return await this.#hub.request(id, "POST", name, { body, signal });
  }

  /** Asks once for all browsers that ask at about the same time, unless the answer has no end. */
  async #query(id: string, name: string, signal: AbortSignal): Promise<Response | undefined> {
    const key = `${id}/${name}`;
    const known = this.#answers.get(key);
    if (known !== undefined && performance.now() < known.until) return known.response.clone();
    const response = await this.#hub.request(id, "GET", name, { signal });
    if (response?.headers.get("content-type") !== "application/json") return response;
    const { status, headers } = response;
    const text = await textOf(response.body, MAX_ANSWER_BYTES, { what: "an answer", path: key });
    const whole = new Response(text, { status, headers });
    this.#answers.set(key, { response: whole, until: performance.now() + ANSWER_AGE_MS });
    return whole.clone();
  }

  #text(status: number, text: string): Response {
    return this.#response(`${text}\n`, status, "text/plain; charset=utf-8");
  }

  #response(body: BodyInit | null, status: number, type: string): Response {
    return new Response(body, { status, headers: { ...this.#headers, "content-type": type } });
  }
}
