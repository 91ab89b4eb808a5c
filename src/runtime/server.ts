/**
 * Serves a device to front-ends.
 *
 * @module
 */

import { readLink, type UnixConnection } from "../linux/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import { DeviceHost, type DeviceHostOptions, type SharedThread } from "./device_host.ts";
import type { Endpoint, FrontendSource } from "./endpoint.ts";
import type { RecordJson } from "./record.ts";
import type { Session } from "./session/session.ts";

/** Time before a waiting front-end is reported, so that one that reconnects is not. */
const WAITING_MS = 1000;

/** The endpoint of a device, and how to run the device. */
export type ServeOptions = Endpoint & DeviceHostOptions;

/**
 * A running server of a device. It serves one front-end at a time; the next one waits in the
 * socket's backlog.
 */
export class DeviceServer implements AsyncDisposable {
  /**
   * The device.
   *
   * @internal
   */
  readonly host: DeviceHost;
  /**
   * Resolves when serving has ended: by {@linkcode DeviceServer.close}, or with the end of an
   * inherited connection. Rejects when no more front-ends can connect.
   */
  readonly finished: Promise<void>;
  readonly #source: FrontendSource;
  readonly #Session: typeof Session;
  #session: Session | undefined;
  #connected: Promise<void> = Promise.resolve();
  readonly #closing = Promise.withResolvers<void>();
  #isClosing = false;
  #released: Promise<void> | undefined;

  private constructor(host: DeviceHost, source: FrontendSource, SessionOf: typeof Session) {
    this.host = host;
    this.#Session = SessionOf;
    this.#source = source;
    const { path } = source;
    host.path = path?.startsWith("/") === false ? `${readLink("/proc/self/cwd")}/${path}` : path;
    this.finished = this.#serveAll();
    this.finished.catch(() => {}); // Nobody needs to await it
  }

  /**
   * Serves a device to the front-ends of an endpoint, and closes the endpoint at the end.
   *
   * @param shared The thread of an instance that shares it.
   *
   * @internal
   * @throws The error of the device's `open`.
   */
  static async start(
    source: FrontendSource,
    device: AnyDevice,
    options: DeviceHostOptions,
    shared?: SharedThread,
  ): Promise<DeviceServer> {
    try {
      const opening = DeviceHost.open(device, options, shared);
      // Load the session's modules while the device opens and its thread starts
      const loading = import("./session/session.ts");
      loading.catch(() => {});
      const host = await opening;
      try {
        return new DeviceServer(host, source, (await loading).Session);
      } catch (error) {
        await host[Symbol.asyncDispose]();
        throw error;
      }
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  }

  async #serveAll(): Promise<void> {
    // Everything is loaded before the first front-end connects
    await Promise.race([this.host.ready.catch(() => {}), this.#closing.promise]);
    for (;;) {
      // While too many descriptors are stuck, no other front-end is accepted
      const { quarantine } = this.host;
      if (quarantine.isFull) await Promise.race([quarantine.room(), this.#closing.promise]);
      const connection = await this.#source.next();
      if (connection === undefined) return;
      await this.#serve(connection);
    }
  }

  async #serve(connection: UnixConnection): Promise<void> {
    const { quarantine } = this.host;
    if (this.#isClosing) return await connection.closeIn(quarantine).catch(() => {});
    this.#session = new this.#Session(this.host, connection);
    using _others = this.#reportWaiting();
    try {
      await (this.#connected = this.#session.run());
    } finally {
      this.#session = undefined;
    }
  }

  /** Reports front-ends that wait for the one that is served. */
  #reportWaiting(): Disposable {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const tell = () => {
      timer = undefined;
      const { frontend } = this.host.record;
      const served = frontend == null ? "one" : `${frontend.command} (pid ${frontend.pid})`;
      this.host.notices.add({
        what: "A front-end waits",
        why: `${served} is connected, and one is served at a time`,
        remedy: "give each guest a device of its own, on a socket of its own",
      });
    };
    const watching = this.#source.watchWaiting?.(() => timer ??= setTimeout(tell, WAITING_MS));
    return {
      [Symbol.dispose]() {
        clearTimeout(timer);
        watching?.[Symbol.dispose]();
      },
    };
  }

  /** Resolves when the connected front-end, if any, is gone and cleaned up. */
  async idle(): Promise<void> {
    await this.#connected;
  }

  /** The record as it is now, with what queue threads reported for the last fresh one. */
  record(): RecordJson {
    return this.host.record.toJSON();
  }

  /** The record with what queue threads report now. */
  async freshRecord(): Promise<RecordJson> {
    return await this.host.freshRecord();
  }

  /** Closes the connection, the socket, its file, and the device. */
  close(): Promise<void> {
    return this.#released ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#isClosing = true;
    this.#closing.resolve();
    this.host.patience.end();
    try {
      this.#source.stop();
    } finally {
      this.#session?.stop();
      await this.finished.catch(() => {});
      await this.host[Symbol.asyncDispose]();
    }
  }

  /** The same as {@linkcode DeviceServer.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
