/**
 * Endpoints: sources of connections from front-ends.
 *
 * @module
 */

import {
  EndpointError,
  Fd,
  inspectSocket,
  LinuxError,
  listenOnPath,
  setCloseOnExec,
  setNonblocking,
  type SocketAccess,
  UnixConnection,
  UnixListener,
  watchSignals,
} from "../linux/mod.ts";
import { Connector } from "./connector.ts";

/** A source of front-ends: a path to listen on or to connect to, or an inherited descriptor. */
export type Endpoint = {
  /** The path of a Unix socket to listen on. A stale socket file is replaced. */
  socketPath: string;
  /**
   * Owner and permissions of the socket's file: every user that may write to it may connect. No
   * process can connect before they are set.
   *
   * @default {this process's user, and what its umask leaves}
   */
  socketAccess?: SocketAccess;
} | {
  /**
   * The path of a Unix socket on which the front-end listens. Connecting is retried until it does,
   * and again when it is gone.
   */
  connectPath: string;
} | {
  /** A descriptor that is a listening or a connected Unix stream socket. */
  fd: number;
};

/** The connections of an endpoint, one after the other. */
export interface FrontendSource extends Disposable {
  /** The path of its socket, if it has one. */
  readonly path?: string;
  /**
   * Waits for the next connection; undefined when there are no more.
   *
   * @throws {Error} When there cannot be any more.
   */
  next(): Promise<UnixConnection | undefined>;
  /** Calls `callback` for each front-end that connects while none is awaited. */
  watchWaiting?(callback: () => void): Disposable;
  /** Makes the pending (or next) `next` resolve to undefined, and removes the socket's file. */
  stop(): void;
}

/**
 * Opens an endpoint.
 *
 * @param log Takes messages for the person who runs the device.
 * @throws {EndpointError} When it cannot be opened.
 */
export function openEndpoint(
  endpoint: Endpoint,
  log: (message: string) => void = () => {},
): FrontendSource {
  if ("connectPath" in endpoint) return new Connector(endpoint.connectPath, log);
  if ("socketPath" in endpoint) {
    const { socketPath, socketAccess } = endpoint;
    return new Listening(
      listenOnPath(socketPath, (path) => UnixListener.listen(path, socketAccess)),
      socketPath,
    );
  }
  return openDescriptor(endpoint.fd);
}

/** Front-ends that connect to a socket. */
class Listening implements FrontendSource {
  readonly path: string | undefined;
  readonly #listener: UnixListener;

  constructor(listener: UnixListener, path?: string) {
    this.#listener = listener;
    this.path = path;
  }

  next(): Promise<UnixConnection | undefined> {
    return this.#listener.accept();
  }

  watchWaiting(callback: () => void): Disposable {
    // Edge-triggered: a waiting connection keeps the listener readable
    return watchSignals(this.#listener.fd.number, callback);
  }

  stop(): void {
    this.#listener.stop();
  }

  [Symbol.dispose](): void {
    this.#listener[Symbol.dispose]();
  }
}

/** The one front-end of an inherited connection. */
class Connected implements FrontendSource {
  #connection: UnixConnection | undefined;

  constructor(connection: UnixConnection) {
    this.#connection = connection;
  }

  next(): Promise<UnixConnection | undefined> {
    const connection = this.#connection;
    this.#connection = undefined;
    return Promise.resolve(connection);
  }

  stop(): void {
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#connection?.[Symbol.dispose]();
    this.#connection = undefined;
  }
}

function openDescriptor(fd: number): FrontendSource {
  let kind: ReturnType<typeof inspectSocket>;
  try {
    kind = inspectSocket(fd);
    setNonblocking(fd, true);
    setCloseOnExec(fd);
  } catch (cause) {
    throw new EndpointError(
      `Expected file descriptor ${fd} to be a Unix stream socket; ${whyNoSocket(cause)}`,
      { cause },
    );
  }
  return kind === "listening"
    ? new Listening(new UnixListener(new Fd(fd)))
    : new Connected(new UnixConnection(new Fd(fd)));
}

function whyNoSocket(cause: unknown): string {
  if (cause instanceof LinuxError) {
    if (cause.code === "EBADF") return "it is not open";
    if (cause.code === "ENOTSOCK") return "it is not a socket";
    return cause.message;
  }
  return "it is another kind of socket";
}
