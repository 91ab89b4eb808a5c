/**
 * Serving a device on a socket.
 *
 * @module
 */

import type { UnixConnection } from "../linux/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import { DeviceHost, type DeviceHostOptions } from "./device_host.ts";
import { type Endpoint, type FrontendSource, openEndpoint } from "./endpoint.ts";
import type { RecordJson } from "./record.ts";
import type { Session } from "./session/session.ts";

/** How long a front-end has to wait before that is told: one that connects again has not to be told of. */
const WAITING_MS = 1000;

/** How to serve a device. */
export type ServeOptions = Endpoint & DeviceHostOptions;

/**
 * A device that is being served: to one front-end at a time, the next one waits in the socket's
 * backlog.
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
  /**
   * Resolves when serving has ended: by {@linkcode DeviceServer.close}, or with the one connection
   * that was inherited. Rejects when no more front-ends can come.
   */
  readonly finished: Promise<void>;
  readonly #source: FrontendSource;
  readonly #Session: typeof Session;
  #session: Session | undefined;
  #connected: Promise<void> = Promise.resolve();
  readonly #closing = Promise.withResolvers<void>();
  #isClosing = false;
  #released: Promise<void> | undefined;

  /** Use {@linkcode serve}. */
  constructor(host: DeviceHost, source: FrontendSource, SessionOf: typeof Session) {
    this.host = host;
    this.#Session = SessionOf;
    this.#source = source;
    this.finished = this.#serveAll();
    // It need not be looked at before the end.
    this.finished.catch(() => {});
  }

  async #serveAll(): Promise<void> {
    // Everything that is loaded is loaded before anybody connects.
    await Promise.race([this.host.ready.catch(() => {}), this.#closing.promise]);
    for (;;) {
      // Who holds up too much for others to be served is waited for.
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
    using _others = this.#tellOfOthers();
    try {
      await (this.#connected = this.#session.run());
    } finally {
      this.#session = undefined;
    }
  }

  /** Tells of front-ends that wait for the one that is served to go. */
  #tellOfOthers(): Disposable {
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
    this.#isClosing = true;
    this.#closing.resolve();
    this.host.patience.end();
    try {
      this.#source.stop();
    } finally {
      this.#session?.stop();
      // Why it ended by itself, if it did, `finished` says.
      await this.finished.catch(() => {});
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
 * @throws {EndpointError} When the endpoint cannot be had.
 * @throws What the device's `open` throws.
 */
export async function serve(device: AnyDevice, options: ServeOptions): Promise<DeviceServer> {
  return await serveFrom(openEndpoint(options, options.log ?? (() => {})), device, options);
}

/**
 * Serves a device to the front-ends of an endpoint that is open, and ends that.
 *
 * @throws What the device's `open` throws.
 */
export async function serveFrom(
  source: FrontendSource,
  device: AnyDevice,
  options: DeviceHostOptions,
): Promise<DeviceServer> {
  try {
    const opening = DeviceHost.open(device, options);
    // Its modules are loaded while the device opens and its thread starts.
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
