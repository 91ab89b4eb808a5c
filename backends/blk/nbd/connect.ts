/**
 * Connects to NBD servers, on the main thread.
 *
 * @module
 */

import {
  connectStream,
  lookUpStreamAddress,
  openFile,
  pinnedString,
  watch,
} from "../../../src/linux/mod.ts";
import {
  DIRECTION_READ,
  DIRECTION_WRITE,
  libnbd,
  nbdError,
  type NbdHandle,
  SIZE_MAXIMUM,
  SIZE_MINIMUM,
  TLS_REQUIRE,
} from "./libnbd.ts";
import type { NbdTarget } from "./uri.ts";

/** What a server has and can do. */
export interface Export {
  readonly bytes: number;
  readonly minBlockBytes: number;
  readonly maxBytes: number;
  readonly readOnly: boolean;
  readonly flush: boolean;
  readonly trim: boolean;
  readonly zero: boolean;
  readonly multiConn: boolean;
  readonly structured: boolean;
}

/** The most bytes of a request, where a server does not say: the protocol's default. */
const DEFAULT_MAX_BYTES = 2 ** 25;

/** An address of IPv4 or IPv6, which needs no look-up. */
const ADDRESS = /^\d+\.\d+\.\d+\.\d+$|:/;

/** An attempt failed, and libnbd keeps its words for the thread that tried. */
class UnknownReason extends Error {}

/** Connects to one server. */
export class Connector {
  readonly #target: NbdTarget;
  readonly #structured: boolean;
  /** The host and the port, as a thread of Deno's reads them. */
  readonly #host: Uint8Array<ArrayBuffer>;
  readonly #port: Uint8Array<ArrayBuffer>;
  /** A call on such a thread that has not returned. */
  #looking: Promise<unknown> | undefined;

  /**
   * Makes no connection yet.
   *
   * @param structured Whether to ask for structured replies.
   * @throws {Error} When libnbd is missing.
   */
  constructor(target: NbdTarget, structured: boolean) {
    this.#target = target;
    this.#structured = structured;
    this.#host = pinnedString(target.host);
    this.#port = pinnedString(String(target.port));
    libnbd();
  }

  /**
   * Connects.
   *
   * @param ms How long it may take.
   * @returns A connection to the export, which is the caller's.
   * @throws {Error} When there is none in time; it says why.
   */
  async connect(ms: number): Promise<NbdHandle> {
    const end = performance.now() + ms;
    try {
      return await this.#connect(end, ADDRESS.test(this.#target.host));
    } catch (error) {
      if (!(error instanceof UnknownReason)) throw error;
    }
    // The server can be reached, and its name has just been looked up
    return await this.#connect(end, true);
  }

  /** @param isHere Whether to look up the host's name on this thread. */
  async #connect(end: number, isHere: boolean): Promise<NbdHandle> {
    const lib = libnbd();
    const handle = lib.create();
    if (handle === null) throw new Error(nbdError());
    try {
      this.#configure(handle);
      await this.#begin(handle, end, isHere);
      while (lib.aio_is_ready(handle) !== 1) await this.#step(handle, end);
      return handle;
    } catch (error) {
      if (this.#looking === undefined) lib.close(handle);
      else void this.#looking.finally(() => lib.close(handle));
      const { host, tls } = this.#target;
      if (!(error as Error).message.includes("certificate verification")) throw error;
      throw new Error(
        `its certificate is not one for ${host} by an authority in ${
          tls!.certificates
        }/ca-cert.pem`,
        { cause: error },
      );
    }
  }

  #configure(handle: NbdHandle): void {
    const lib = libnbd();
    const { exportName, tls } = this.#target;
    expect(lib.set_export_name(handle, pinnedString(exportName)));
    expect(lib.set_structured(handle, this.#structured));
    expect(lib.set_pread_initialize(handle, false));
    if (tls === undefined) return;
    const { certificates, pskFile, username, verifyPeer } = tls;
    if (verifyPeer) expectAuthorities(certificates!);
    expect(lib.set_tls(handle, TLS_REQUIRE));
    if (certificates !== undefined) {
      expect(lib.set_tls_certificates(handle, pinnedString(certificates)));
    }
    if (pskFile !== undefined) expect(lib.set_tls_psk_file(handle, pinnedString(pskFile)));
    if (username !== undefined) expect(lib.set_tls_username(handle, pinnedString(username)));
    expect(lib.set_tls_verify_peer(handle, verifyPeer));
  }

  /** Begins to connect; the whole handshake may take place meanwhile. */
  async #begin(handle: NbdHandle, end: number, isHere: boolean): Promise<void> {
    const lib = libnbd();
    const { socket, host } = this.#target;
    if (socket !== undefined) return expect(lib.aio_connect_unix(handle, pinnedString(socket)));
    if (isHere) return expect(lib.aio_connect_tcp_here(handle, this.#host, this.#port));
    // An attempt that is still looking for the name holds back the next one
    if (this.#looking !== undefined) await within(this.#looking, end, `${host} is still looked up`);
    const [host_, port] = [this.#host, this.#port].map((text) => Deno.UnsafePointer.of(text));
    const looking = lib.aio_connect_tcp(handle, host_, port).finally(() =>
      this.#looking = undefined
    );
    this.#looking = looking;
    if (await within(looking, end, `${host} cannot be looked up in time`) < 0) {
      await within(this.#expectServer(), end, "no network leads to it");
      throw new UnknownReason();
    }
  }

  /** @throws {Error} When the server cannot be reached; it says why. */
  async #expectServer(): Promise<void> {
    const address = await lookUpStreamAddress(this.#target.server);
    (await connectStream(address, new AbortController().signal)).close();
  }

  /** Waits for the server, and continues. */
  async #step(handle: NbdHandle, end: number): Promise<void> {
    const lib = libnbd();
    if (lib.aio_is_dead(handle) === 1) throw new Error(nbdError());
    if (lib.aio_is_closed(handle) === 1) throw new Error("the server closed the connection");
    const direction = lib.aio_get_direction(handle);
    const fd = lib.aio_get_fd(handle);
    const isWriting = (direction & DIRECTION_WRITE) !== 0;
    const { promise, resolve } = Promise.withResolvers<"read" | "write" | "late">();
    const timer = setTimeout(() => resolve("late"), Math.max(end - performance.now(), 0));
    using watches = new DisposableStack();
    watches.defer(() => clearTimeout(timer));
    if ((direction & DIRECTION_READ) !== 0) {
      watches.use(watch(fd, "readable", () => resolve("read")));
    }
    if (isWriting) watches.use(watch(fd, "writable", () => resolve("write")));
    const what = await promise;
    watches.dispose();
    if (what === "late") throw new Error("the server does not answer in time");
    const done = what === "read" ? lib.aio_notify_read(handle) : lib.aio_notify_write(handle);
    if (done < 0) throw new Error(nbdError());
  }
}

/** What the server says of the export. */
export function exportOf(handle: NbdHandle): Export {
  const lib = libnbd();
  const bytes = Number(lib.get_size(handle));
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new Error("Expected a disk below 8 PiB (2^53 bytes), the server says that it is larger");
  }
  const maxBytes = Number(lib.get_block_size(handle, SIZE_MAXIMUM));
  return {
    bytes,
    minBlockBytes: Math.max(Number(lib.get_block_size(handle, SIZE_MINIMUM)), 1),
    maxBytes: maxBytes > 0 ? Math.min(maxBytes, DEFAULT_MAX_BYTES) : DEFAULT_MAX_BYTES,
    readOnly: lib.is_read_only(handle) === 1,
    flush: lib.can_flush(handle) === 1,
    trim: lib.can_trim(handle) === 1,
    zero: lib.can_zero(handle) === 1,
    multiConn: lib.can_multi_conn(handle) === 1,
    structured: lib.get_structured(handle) === 1,
  };
}

/**
 * Expects that the certificates of authorities can be read: else libnbd verifies nothing (before
 * 1.18.5 and 1.20.2: CVE-2024-7383).
 */
function expectAuthorities(directory: string): void {
  try {
    openFile(`${directory}/ca-cert.pem`).close();
  } catch (cause) {
    throw new Error(
      `Expected certificates of authorities to verify the server by: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** @throws {Error} When a call of libnbd failed. */
function expect(result: number): void {
  if (result < 0) throw new Error(nbdError());
}

/** The value of a promise, if it comes before a time. */
async function within<T>(promise: Promise<T>, end: number, late: string): Promise<T> {
  const { promise: ending, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(late)), Math.max(end - performance.now(), 0));
  try {
    return await Promise.race([promise, ending]);
  } finally {
    clearTimeout(timer);
  }
}
