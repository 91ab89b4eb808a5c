/**
 * Serving a device on a socket.
 *
 * @module
 */

import {
  Fd,
  inspectSocket,
  LinuxError,
  setNonblocking,
  UnixConnection,
  UnixListener,
} from "../linux/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import { DeviceHost, type DeviceHostOptions } from "./device_host.ts";
import type { RecordJson } from "./record.ts";
import { Session } from "./session.ts";
import { EndpointError, listenOnPath, removeSocketFile } from "./socket_path.ts";

/** Where front-ends come from: a socket path, or an inherited descriptor. */
export type Endpoint = {
  /** The path of a Unix socket to listen on. A stale socket file is replaced. */
  socketPath: string;
} | {
  /** A descriptor that is a listening or a connected Unix stream socket. */
  fd: number;
};

/** How to serve a device. */
export type ServeOptions = Endpoint & DeviceHostOptions;

/**
 * A device that is being served: one front-end at a time, the next one waits
 * in the socket's backlog.
 *
 * @example
 * ```ts no-assert
 * import { serve } from "./server.ts";
 * import rng from "../../backends/rng/mod.ts";
 *
 * const socketPath = `${Deno.makeTempDirSync()}/rng.sock`;
 * await using server = await serve(rng, { socketPath });
 * console.log(server.record().queues[0].requests); // 0
 * ```
 */
export class DeviceServer implements AsyncDisposable {
  /**
   * The device.
   *
   * @internal
   */
  readonly host: DeviceHost;
  /** Resolves when serving has ended: by {@linkcode DeviceServer.close}, or with the one connection that was inherited. */
  readonly finished: Promise<void>;
  readonly #listener: UnixListener | undefined;
  readonly #socketPath: string | undefined;
  #session: Session | undefined;
  #connected: Promise<void> = Promise.resolve();
  #closing = false;
  #released: Promise<void> | undefined;

  /** Use {@linkcode serve}. */
  constructor(host: DeviceHost, socket: UnixListener | UnixConnection, socketPath?: string) {
    this.host = host;
    this.#socketPath = socketPath;
    if (socket instanceof UnixListener) {
      this.#listener = socket;
      this.finished = this.#accept(socket);
    } else {
      this.finished = this.#serve(socket);
    }
  }

  async #accept(listener: UnixListener): Promise<void> {
    for (;;) {
      const connection = await listener.accept();
      if (connection === undefined) return;
      await this.#serve(connection);
    }
  }

  async #serve(connection: UnixConnection): Promise<void> {
    if (this.#closing) return await connection.close();
    this.#session = new Session(this.host, connection);
    try {
      await (this.#connected = this.#session.run());
    } finally {
      this.#session = undefined;
    }
  }

  /** Resolves when the front-end that is connected, if any, is gone and nothing is left of it. */
  async idle(): Promise<void> {
    await this.#connected;
  }

  /** The record as it is now. */
  record(): RecordJson {
    return this.host.record.toJSON();
  }

  /** Ends the connection that there is, the socket, its file, and the device. */
  close(): Promise<void> {
    return this.#released ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#closing = true;
    this.#listener?.stop();
    this.#session?.stop();
    try {
      if (this.#socketPath !== undefined) removeSocketFile(this.#socketPath);
    } finally {
      await this.finished;
      await this.host[Symbol.asyncDispose]();
    }
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Serves a device.
 *
 * @throws {EndpointError} When the socket cannot be had.
 * @throws What the device's `open` throws.
 */
export async function serve(device: AnyDevice, options: ServeOptions): Promise<DeviceServer> {
  const socket = openEndpoint(options);
  const path = "socketPath" in options ? options.socketPath : undefined;
  try {
    return new DeviceServer(await DeviceHost.open(device, options), socket, path);
  } catch (error) {
    socket[Symbol.dispose]();
    if (path !== undefined) removeSocketFile(path);
    throw error;
  }
}

function openEndpoint(endpoint: Endpoint): UnixListener | UnixConnection {
  if ("socketPath" in endpoint) return listenOnPath(endpoint.socketPath, UnixListener.listen);
  const { fd } = endpoint;
  let kind: ReturnType<typeof inspectSocket>;
  try {
    kind = inspectSocket(fd);
    setNonblocking(fd, true);
  } catch (cause) {
    throw new EndpointError(
      `Expected file descriptor ${fd} to be a Unix stream socket; ${whyNoSocket(cause)}`,
      { cause },
    );
  }
  return kind === "listening" ? new UnixListener(new Fd(fd)) : new UnixConnection(new Fd(fd));
}

function whyNoSocket(cause: unknown): string {
  if (cause instanceof LinuxError) {
    if (cause.code === "EBADF") return "it is not open";
    if (cause.code === "ENOTSOCK") return "it is not a socket";
    return cause.message;
  }
  return "it is another kind of socket";
}
