/**
 * The control socket of a device: HTTP on a Unix socket, for its owner only.
 *
 * | request      | answer                                                        |
 * |--------------|---------------------------------------------------------------|
 * | `GET /`      | what there is                                                 |
 * | `GET /record`| the record: {@linkcode RecordJson}                            |
 * | `POST /NAME` | what the device's command NAME answers; the body is JSON or empty |
 *
 * An answer that is no success is `{ "error": "…" }`: 400 for a body that the command does not
 * take, 404, 405, 413 for a body above 1 MiB, 500 when the command failed, and 503 when too many
 * requests are being answered.
 *
 * @module
 */

import { type UnixConnection, UnixListener } from "../linux/mod.ts";
import { withUmask } from "../linux/file/path.ts";
import type { DeviceCommand } from "../virtio/mod.ts";
import type { DeviceHost } from "./device_host.ts";
import { type HttpAnswer, HttpError, HttpRequest, sendAnswer } from "./http.ts";
import { shownJson } from "./shown.ts";
import { listenOnPath } from "./socket_path.ts";

/** The largest body of a request, in bytes. */
export const MAX_CONTROL_BODY_BYTES = 2 ** 20;

/** How many requests may be answered at the same time. */
export const MAX_CONTROL_REQUESTS = 16;

/** How many connections there may be; further ones wait to be accepted. */
export const MAX_CONTROL_PEERS = 64;

/** How long a connection may say nothing while nothing is being answered. */
export const CONTROL_IDLE_MS = 10_000;

/** How long requests that are being answered have when the socket is closed. */
const CLOSING_MS = 500;

/** The file of the socket is its owner's alone. */
const UMASK = 0o177;

const LIMITS = { bodyBytes: MAX_CONTROL_BODY_BYTES, idleMs: CONTROL_IDLE_MS };

/**
 * A control socket that is open.
 *
 * Not by `Deno.serve`, which has no limit for connections, and at its end removes whatever is at
 * its path by then (Deno 2.9.6).
 */
export class ControlSocket implements AsyncDisposable {
  readonly #host: DeviceHost;
  readonly #listener: UnixListener;
  readonly #serving: Promise<void>;
  /** Connections, and what is done with them. */
  readonly #connections = new Map<UnixConnection, Promise<void>>();
  /** How to end the requests that are being answered. */
  readonly #pending = new Set<() => void>();
  #onEnd: () => void = () => {};

  /**
   * Opens the control socket of a device. A stale socket file is replaced.
   *
   * @throws {EndpointError} When the path cannot be had.
   */
  constructor(host: DeviceHost, path: string) {
    this.#host = host;
    this.#listener = listenOnPath(
      path,
      (path) => withUmask(UMASK, () => UnixListener.listen(path)),
    );
    this.#serving = this.#serve();
  }

  async #serve(): Promise<void> {
    for (;;) {
      const connection = await this.#listener.accept();
      if (connection === undefined) return;
      const talking = this.#talk(connection).finally(() => {
        this.#connections.delete(connection);
        this.#onEnd();
      });
      this.#connections.set(connection, talking);
      while (this.#connections.size >= MAX_CONTROL_PEERS) {
        await new Promise<void>((resolve) => this.#onEnd = resolve);
      }
    }
  }

  /** Answers the request of a connection, and closes it. */
  async #talk(connection: UnixConnection): Promise<void> {
    try {
      let isHead = false;
      let answered: HttpAnswer;
      try {
        const request = await HttpRequest.read(connection, LIMITS);
        if (request === undefined) return;
        isHead = request.method === "HEAD";
        answered = await this.#answer(request);
      } catch (error) {
        if (!(error instanceof HttpError)) throw error;
        answered = failed(error.status, error, error.headers);
      }
      await sendAnswer(connection, answered, { idleMs: CONTROL_IDLE_MS, isHead });
    } catch {
      // Whoever asked is gone, and with them whom to tell.
    } finally {
      await connection.close();
    }
  }

  async #answer(request: HttpRequest): Promise<HttpAnswer> {
    if (this.#pending.size >= MAX_CONTROL_REQUESTS) {
      return failed(
        503,
        new Error(`Expected at most ${MAX_CONTROL_REQUESTS} requests at a time; try again`),
      );
    }
    const end = Promise.withResolvers<HttpAnswer>();
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
    this.#listener.stop();
    const isIdle = () => this.#pending.size === 0;
    const timers = [
      setTimeout(() => this.#pending.forEach((endNow) => endNow()), CLOSING_MS),
      setTimeout(() => this.#endConnections(), 2 * CLOSING_MS),
    ];
    if (isIdle()) this.#endConnections();
    await this.#serving;
    await Promise.all(this.#connections.values());
    timers.forEach(clearTimeout);
  }

  #endConnections(): void {
    for (const connection of this.#connections.keys()) connection.shutdown();
  }
}

async function answer(host: DeviceHost, request: HttpRequest): Promise<HttpAnswer> {
  try {
    return await route(host, request);
  } catch (error) {
    if (error instanceof HttpError) return failed(error.status, error, error.headers);
    return failed(500, error);
  }
}

async function route(host: DeviceHost, request: HttpRequest): Promise<HttpAnswer> {
  const name = request.path.slice(1);
  switch (name) {
    case "":
      expectMethod(request, "GET", "HEAD");
      return json(200, index(host));
    case "record":
      expectMethod(request, "GET", "HEAD");
      return json(200, host.record.toJSON());
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

async function run(command: DeviceCommand, body: unknown): Promise<HttpAnswer> {
  try {
    return json(200, await command.run(body) ?? {});
  } catch (error) {
    const isRefused = error instanceof TypeError || error instanceof RangeError;
    return failed(isRefused ? 400 : 500, error);
  }
}

/** The body of a request; undefined when it is empty. */
async function readBody(request: HttpRequest): Promise<unknown> {
  const bytes = await request.body();
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.trim() === "" ? undefined : JSON.parse(text);
  } catch (error) {
    throw new HttpError(400, `Expected JSON or no body: ${(error as Error).message}`);
  }
}

function expectMethod(request: HttpRequest, ...methods: string[]): void {
  if (methods.includes(request.method)) return;
  throw new HttpError(405, `Expected ${methods[0]}, got ${request.method}`, {
    allow: methods.join(", "),
  });
}

function json(status: number, value: unknown, headers?: Record<string, string>): HttpAnswer {
  return { status, body: `${shownJson(value)}\n`, headers };
}

function failed(status: number, error: unknown, headers?: Record<string, string>): HttpAnswer {
  return json(status, { error: error instanceof Error ? error.message : String(error) }, headers);
}
