/**
 * The control socket of a device: HTTP on a Unix socket, for its owner only.
 *
 * | request      | answer                                                        |
 * |--------------|---------------------------------------------------------------|
 * | `GET /`      | what there is                                                 |
 * | `GET /record`| the record: {@linkcode RecordJson}                            |
 * | `POST /NAME` | what the device's command NAME answers; the body is JSON or empty |
 *
 * An answer that is no success is `{ "error": "…" }`: 400 for a body that the
 * command does not take, 404, 405, 413 for a body above 1 MiB, 500 when the
 * command failed, and 503 when too many requests are being answered.
 *
 * @module
 */

import { withUmask } from "../linux/mod.ts";
import type { DeviceCommand } from "../virtio/mod.ts";
import type { DeviceHost } from "./device_host.ts";
import { shownJson } from "./shown.ts";
import { listenOnPath, removeSocketFile } from "./socket_path.ts";

/** The largest body of a request, in bytes. */
export const MAX_CONTROL_BODY_BYTES = 2 ** 20;

/** How many requests may be answered at the same time. */
export const MAX_CONTROL_REQUESTS = 16;

/** How long requests that are being answered have when the socket is closed. */
const CLOSING_MS = 500;

/** The file of the socket is its owner's alone. */
const UMASK = 0o177;

/** A request that is not answered as it wants. */
class HttpError extends Error {
  readonly status: number;
  readonly headers: Record<string, string>;

  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** A control socket that is open. */
export class ControlSocket implements AsyncDisposable {
  readonly #host: DeviceHost;
  readonly #path: string;
  readonly #server: Deno.HttpServer;
  /** How to end the requests that are being answered. */
  readonly #pending = new Set<() => void>();

  /**
   * Opens the control socket of a device. A stale socket file is replaced.
   *
   * @throws {EndpointError} When the path cannot be had.
   */
  constructor(host: DeviceHost, path: string) {
    this.#host = host;
    this.#path = path;
    this.#server = listenOnPath(path, (path) =>
      withUmask(UMASK, () =>
        Deno.serve(
          { path, onListen: () => {}, onError: (error) => failed(500, error) },
          (request) => this.#answer(request),
        )));
  }

  async #answer(request: Request): Promise<Response> {
    if (this.#pending.size >= MAX_CONTROL_REQUESTS) {
      return failed(
        503,
        new Error(`Expected at most ${MAX_CONTROL_REQUESTS} requests at a time; try again`),
      );
    }
    const end = Promise.withResolvers<Response>();
    const endNow = () => end.resolve(failed(503, new Error("The device ends")));
    this.#pending.add(endNow);
    try {
      return await Promise.race([answer(this.#host, request), end.promise]);
    } finally {
      this.#pending.delete(endNow);
    }
  }

  /** Closes the socket and removes its file; requests that are being answered have a moment. */
  async [Symbol.asyncDispose](): Promise<void> {
    // Aborting a server that is shutting down throws from the signal's listener
    // (Deno 2.9.6), so its answers are ended instead.
    const timer = setTimeout(() => this.#pending.forEach((endNow) => endNow()), CLOSING_MS);
    try {
      await this.#server.shutdown();
    } finally {
      clearTimeout(timer);
      removeSocketFile(this.#path);
    }
  }
}

async function answer(host: DeviceHost, request: Request): Promise<Response> {
  try {
    return await route(host, request);
  } catch (error) {
    if (error instanceof HttpError) return failed(error.status, error, error.headers);
    throw error;
  }
}

async function route(host: DeviceHost, request: Request): Promise<Response> {
  const name = new URL(request.url).pathname.slice(1);
  switch (name) {
    case "":
      expectMethod(request, "GET", "HEAD");
      return json(index(host));
    case "record":
      expectMethod(request, "GET", "HEAD");
      return json(host.record.toJSON());
  }
  const commands = commandsOf(host);
  if (!Object.hasOwn(commands, name)) {
    throw new HttpError(404, `There is no /${name}; GET / tells what there is`);
  }
  expectMethod(request, "POST");
  return await run(commands[name], await readBody(request));
}

/** What there is. */
function index(host: DeviceHost): Record<string, unknown> {
  const { name, deviceId, about } = host.device;
  return {
    device: { name, id: deviceId, about },
    requests: [
      { method: "GET", path: "/record", about: "What the front-end and the driver did" },
      ...Object.entries(commandsOf(host)).map(([name, { about }]) => ({
        method: "POST",
        path: `/${name}`,
        about,
      })),
    ],
  };
}

function commandsOf(host: DeviceHost): Readonly<Record<string, DeviceCommand>> {
  return host.control.commands ?? {};
}

async function run(command: DeviceCommand, body: unknown): Promise<Response> {
  try {
    return json(await command.run(body) ?? {});
  } catch (error) {
    const isRefused = error instanceof TypeError || error instanceof RangeError;
    return failed(isRefused ? 400 : 500, error);
  }
}

/** The body of a request; undefined when it is empty. */
async function readBody(request: Request): Promise<unknown> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let bytes = 0;
  let text = "";
  try {
    for await (const chunk of request.body ?? []) {
      bytes += chunk.length;
      if (bytes > MAX_CONTROL_BODY_BYTES) {
        throw new HttpError(413, `Expected a body of at most ${MAX_CONTROL_BODY_BYTES} bytes`);
      }
      text += decoder.decode(chunk, { stream: true });
    }
    text += decoder.decode();
    return text.trim() === "" ? undefined : JSON.parse(text);
  } catch (error) {
    if (error instanceof HttpError) throw error;
    throw new HttpError(400, `Expected JSON or no body: ${(error as Error).message}`);
  }
}

function expectMethod(request: Request, ...methods: string[]): void {
  if (methods.includes(request.method)) return;
  throw new HttpError(405, `Expected ${methods[0]}, got ${request.method}`, {
    allow: methods.join(", "),
  });
}

function json(value: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(`${shownJson(value)}\n`, {
    status,
    headers: { ...headers, "content-type": "application/json" },
  });
}

function failed(status: number, error: unknown, headers?: Record<string, string>): Response {
  return json({ error: error instanceof Error ? error.message : String(error) }, status, headers);
}
