/**
 * The control socket of a process: HTTP on a Unix socket, for its owner only.
 *
 * | request        | answer                                                             |
 * | -------------- | ------------------------------------------------------------------ |
 * | `GET /`        | the device, and the list of requests                               |
 * | `GET /record`  | the record: {@linkcode RecordJson}                                 |
 * | `GET /metrics` | the record for Prometheus: `metrics.ts`                             |
 * | `GET /trace`   | the status of the trace of requests: {@linkcode TraceStatus}       |
 * | `POST /trace`  | begins or ends it: see {@linkcode Tracing.post}                    |
 * | `GET /changes` | its changes, without end: see `changes.ts`                         |
 * | `GET /wire`    | the vhost-user messages, without end, as `--wire` writes them      |
 * | `GET /NAME`    | the result of the device's query NAME: JSON, or bytes without end  |
 * | `POST /traced` | takes accesses of the driver that `vhostd watch` traced            |
 * | `POST /NAME`   | the result of the device's command NAME; the body is JSON or empty |
 *
 * Where there are several instances of the device, `/INSTANCE/record` and so on are those of one,
 * `/record` is {@linkcode GroupRecordJson}, `/metrics` has those of all, and any other request goes
 * to the first instance.
 *
 * An error is answered with `{ "error": "…" }`: 400 for a body that the command refuses, 404, 405,
 * 413 for a body above 1 MiB, 500 for a command that failed, 503 for too many requests or answers
 * without end at a time.
 *
 * @module
 */

import { listenOnPath, type UnixConnection, UnixListener } from "../linux/mod.ts";
import { withUmask } from "../linux/file/path.ts";
import type { DeviceCommand } from "../virtio/mod.ts";
import { streamChanges } from "./changes.ts";
import type { DeviceHost } from "./device_host.ts";
import type { RecordJson } from "./record.ts";
import type { ServerGroup } from "./server_group.ts";
import { type HttpAnswer, HttpError, HttpRequest, sendAnswer } from "./http.ts";
import { shownJson } from "./shown.ts";

/** The largest body of a request, in bytes. */
export const MAX_CONTROL_BODY_BYTES = 2 ** 20;

/** Number of requests that are answered at the same time. */
export const MAX_CONTROL_REQUESTS = 16;

/** Number of connections; further ones wait to be accepted. */
export const MAX_CONTROL_PEERS = 64;

/** Number of endless answers at a time: clients that do not read them must leave room for requests. */
export const MAX_CONTROL_STREAMS = 32;

/** Time for which a connection may be silent while no request of it is answered. */
const CONTROL_IDLE_MS = 10_000;

/** Time that pending requests get when the socket is closed. */
const CLOSING_MS = 500;

/** Only the owner may connect. */
const UMASK = 0o177;

const LIMITS = { bodyBytes: MAX_CONTROL_BODY_BYTES, idleMs: CONTROL_IDLE_MS };

/**
 * An open control socket. It does not use `Deno.serve`, which has no limit of connections and at
 * its end removes any file at its path (Deno 2.9.6).
 */
export class ControlSocket implements AsyncDisposable {
  readonly #served: DeviceHost | ServerGroup;
  readonly #listener: UnixListener;
  readonly #serving: Promise<void>;
  /** Connections, each with the promise of its end. */
  readonly #connections = new Map<UnixConnection, Promise<void>>();
  /** A function for each pending request that ends it. */
  readonly #pending = new Set<() => void>();
  #onEnd: () => void = () => {};
  /** Number of answers without end. */
  #streams = 0;

  /**
   * Opens the control socket of a device, or of the instances of one. Replaces a stale socket file.
   *
   * @throws {EndpointError} When it cannot listen there.
   */
  constructor(served: DeviceHost | ServerGroup, path: string) {
    this.#served = served;
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
    let isStream = false;
    try {
      let isHead = false;
      let answered: HttpAnswer;
      try {
        const request = await HttpRequest.read(connection, LIMITS);
        if (request === undefined) return;
        isHead = request.method === "HEAD";
        answered = await this.#answer(request);
      } catch (error) {
        answered = error instanceof HttpError
          ? failed(error.status, error, error.headers)
          : failed(500, error);
      }
      if (answered.body instanceof ReadableStream) {
        isStream = this.#streams < MAX_CONTROL_STREAMS;
        if (isStream) this.#streams++;
        else {
          await answered.body.cancel();
          const why = `Expected at most ${MAX_CONTROL_STREAMS} answers without end at a time`;
          answered = failed(503, new Error(why));
        }
      }
      await sendAnswer(connection, answered, { idleMs: CONTROL_IDLE_MS, isHead });
    } catch {
      // The client is gone
    } finally {
      if (isStream) this.#streams--;
      await connection.close();
    }
  }

  async #answer(request: HttpRequest): Promise<HttpAnswer> {
    if (this.#pending.size >= MAX_CONTROL_REQUESTS) {
      const why = `Expected at most ${MAX_CONTROL_REQUESTS} requests at a time; try again`;
      return failed(503, new Error(why));
    }
    const end = Promise.withResolvers<HttpAnswer>();
    const endNow = () => end.resolve(failed(503, new Error("The device ends")));
    this.#pending.add(endNow);
    try {
      return await Promise.race([answer(this.#served, request), end.promise]);
    } finally {
      this.#pending.delete(endNow);
    }
  }

  /** Closes the socket and removes its file; pending requests get a moment. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.stop();
    const timers = [
      setTimeout(() => this.#pending.forEach((endNow) => endNow()), CLOSING_MS),
      setTimeout(() => this.#endConnections(), 2 * CLOSING_MS),
    ];
    if (this.#pending.size === 0) this.#endConnections();
    await this.#serving;
    await Promise.all(this.#connections.values());
    timers.forEach(clearTimeout);
  }

  #endConnections(): void {
    for (const connection of this.#connections.keys()) connection.shutdown();
  }
}

async function answer(
  served: DeviceHost | ServerGroup,
  request: HttpRequest,
): Promise<HttpAnswer> {
  const path = request.path.slice(1);
  if (!("servers" in served)) return await answerOf(served, path, request);
  const { servers } = served;
  if (path === "record") {
    expectMethod(request, "GET", "HEAD");
    return json(200, await served.freshRecord());
  }
  if (path === "metrics") {
    expectMethod(request, "GET", "HEAD");
    return await metrics(Object.values((await served.freshRecord()).instances));
  }
  const [, instance, rest] = /^([^/]*)\/?(.*)$/.exec(path)!;
  const server = servers.get(instance);
  if (server !== undefined) return await answerOf(server.host, rest, request);
  const [[first, { host }]] = servers;
  if (path !== "") return await answerOf(host, path, request);
  expectMethod(request, "GET", "HEAD");
  const { requests, ...described } = index(host);
  return json(200, {
    ...described,
    instances: [...servers.keys()],
    requests: [...requests, ...index(host, `/${first}`).requests],
  });
}

/** @param name The path, without what names an instance and the slash after it. */
async function answerOf(
  host: DeviceHost,
  name: string,
  request: HttpRequest,
): Promise<HttpAnswer> {
  switch (name) {
    case "":
      expectMethod(request, "GET", "HEAD");
      return json(200, index(host));
    case "record":
      expectMethod(request, "GET", "HEAD");
      return json(200, await host.freshRecord());
    case "changes":
      expectMethod(request, "GET", "HEAD");
      return { status: 200, body: streamChanges(host) };
    case "wire": {
      expectMethod(request, "GET", "HEAD");
      const { streamWire } = await import("./wire_capture.ts");
      return { status: 200, body: streamWire(host.wire, host.device.name) };
    }
    case "traced": {
      expectMethod(request, "POST");
      const body = await readBody(request);
      return await run({ about: "", run: () => host.record.traced(body) }, undefined);
    }
    case "trace":
      expectMethod(request, "GET", "HEAD", "POST");
      if (request.method !== "POST") return json(200, host.tracing.status);
      return await run(
        { about: "", run: (body) => host.tracing.post(body) },
        await readBody(request),
      );
    case "metrics":
      expectMethod(request, "GET", "HEAD");
      return await metrics([await host.freshRecord()]);
  }
  const { commands = {}, queries = {} } = host.control;
  if (Object.hasOwn(queries, name)) {
    expectMethod(request, "GET", "HEAD");
    return await run(queries[name], undefined);
  }
  if (!Object.hasOwn(commands, name)) {
    throw new HttpError(404, `There is no /${name}; GET / lists the requests`);
  }
  expectMethod(request, "POST");
  return await run(commands[name], await readBody(request));
}

/** The device, and the list of requests, whose paths begin with `prefix`. */
function index(host: DeviceHost, prefix = "") {
  const { device, control: { commands = {}, queries = {} }, config: { layout } } = host;
  const { name, deviceId, about, panel } = device;
  const listed = (method: string, offered: Readonly<Record<string, DeviceCommand>>) =>
    Object.entries(offered).map(([name, { about }]) => ({
      ...{ method, path: `${prefix}/${name}`, about },
    }));
  return {
    device: { name, id: deviceId, about },
    panel,
    config: layout.fields,
    ...host.path !== undefined && { socketPath: host.path },
    requests: [
      { method: "GET", path: `${prefix}/record`, about: "What the front-end and the driver did" },
      { method: "GET", path: `${prefix}/changes`, about: "The same and its changes, line by line" },
      { method: "GET", path: `${prefix}/wire`, about: "The vhost-user messages, as pcapng" },
      { method: "GET", path: `${prefix}/trace`, about: "The status of the trace of requests" },
      {
        method: "POST",
        path: `${prefix}/trace`,
        about: 'Trace requests: {"file": "/PATH"}, or end that: {"stop": true}',
      },
      { method: "GET", path: `${prefix}/metrics`, about: "The record for Prometheus" },
      ...listed("GET", queries),
      ...listed("POST", commands),
    ],
  };
}

async function metrics(records: readonly RecordJson[]): Promise<HttpAnswer> {
  const { METRICS_TYPE, metricsText } = await import("./metrics.ts");
  const body = metricsText(records.map((record) => ({ record })));
  return { status: 200, body, headers: { "content-type": METRICS_TYPE } };
}

async function run(command: DeviceCommand, body: unknown): Promise<HttpAnswer> {
  try {
    const result = await command.run(body) ?? {};
    return result instanceof ReadableStream ? { status: 200, body: result } : json(200, result);
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
