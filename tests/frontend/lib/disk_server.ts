/**
 * A web server on loopback that serves a disk, and misbehaves as a test says.
 *
 * @module
 */

import { freePort } from "./free_port.ts";

/** What a test makes of a request; undefined: the plain answer. */
export type Script = (
  request: Request,
  range: { from: number; end: number },
) => Response | undefined | Promise<Response | undefined>;

/** Content of which each 512 bytes are different. */
function diskContent(bytes: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 0x9e37_79b1);
  return new Uint8Array(words.buffer, 0, bytes);
}

/** Serves a disk until it is disposed of. */
export class DiskServer implements AsyncDisposable {
  readonly content: Uint8Array<ArrayBuffer>;
  etag: string | null = '"one"';
  lastModified: string | null = null;
  script: Script | undefined;
  /** The ranges that were asked for. */
  readonly ranges: { from: number; end: number }[] = [];
  readonly #port: number;
  readonly #tls: { key: string; cert: string } | undefined;
  #server: Deno.HttpServer<Deno.NetAddr>;
  #stop = new AbortController();

  constructor(bytes: number, { port = freePort(), tls }: ServerOptions = {}) {
    this.content = diskContent(bytes);
    this.#tls = tls;
    this.#port = port;
    this.#server = this.#serve(port);
  }

  #serve(port: number): Deno.HttpServer<Deno.NetAddr> {
    const where = {
      ...{ hostname: "127.0.0.1", port, onListen() {}, signal: this.#stop.signal },
      onError: () => new Response(null, { status: 500 }),
    };
    const answer = (request: Request) => this.#answer(request);
    return this.#tls === undefined
      ? Deno.serve(where, answer)
      : Deno.serve({ ...where, ...this.#tls }, answer);
  }

  /** The URL of the disk. */
  get url(): string {
    const scheme = this.#tls === undefined ? "http" : "https";
    return `${scheme}://${this.#tls ? "localhost" : "127.0.0.1"}:${this.#port}/disk.raw`;
  }

  async #answer(request: Request): Promise<Response> {
    const size = this.content.length;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
    const from = Number(first ?? 0), end = Math.min(size, Number(last ?? size - 1) + 1);
    this.ranges.push({ from, end });
    return await this.script?.(request, { from, end }) ?? this.part(request, from, end);
  }

  /** The plain answer. */
  part(request: Request, from: number, end: number, fields: HeadersInit = {}): Response {
    const { headers } = request;
    if (headers.get("if-match") !== null && headers.get("if-match") !== this.etag) {
      return new Response(null, { status: 412 });
    }
    const body = this.content.subarray(from, end);
    return new Response(body, { status: 206, headers: this.fields(from, end, fields) });
  }

  /** The fields of the plain answer. */
  fields(from: number, end: number, fields: HeadersInit = {}): Headers {
    const headers = new Headers({
      "content-range": `bytes ${from}-${end - 1}/${this.content.length}`,
      ...this.etag !== null && { etag: this.etag },
      ...this.lastModified !== null && { "last-modified": this.lastModified },
    });
    for (const [name, value] of new Headers(fields)) headers.set(name, value);
    return headers;
  }

  /** Ends all connections and listens no more. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#server.finished;
  }

  /** Listens again. */
  start(): void {
    this.#stop = new AbortController();
    this.#server = this.#serve(this.#port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

interface ServerOptions {
  /** @default {one that nobody takes while the server is stopped} */
  port?: number;
  tls?: { key: string; cert: string };
}

/** A {@linkcode DiskServer} in a process of its own, which can be killed. */
export class DiskServerProcess {
  readonly #child: Deno.ChildProcess;

  private constructor(
    child: Deno.ChildProcess,
    readonly url: string,
    readonly content: Uint8Array<ArrayBuffer>,
  ) {
    this.#child = child;
  }

  /** Starts one, on the port that an earlier one had. */
  static async start(bytes: number, port = freePort()): Promise<DiskServerProcess> {
    const child = new Deno.Command("setpriv", {
      args: [
        ...["--pdeathsig", "KILL", "--", Deno.execPath(), "run", "--quiet", "--no-check"],
        ...["--allow-net", import.meta.filename!, `${bytes}`, `${port}`],
      ],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    let url = "";
    for (let piece; !url.endsWith("\n") && !(piece = await reader.read()).done;) {
      url += new TextDecoder().decode(piece.value);
    }
    await reader.cancel();
    return new DiskServerProcess(child, url.trim(), diskContent(bytes));
  }

  /** Kills it at once. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }
}

if (import.meta.main) {
  const [bytes, port] = Deno.args.map(Number);
  console.log(new DiskServer(bytes, { port }).url);
}
