import type { ConfigTransport } from "../virtio/config/driver.ts";
import type { FrontendConnection } from "./connection.ts";

/**
 * A device's config space as its driver sees it: each access is one GET_CONFIG or SET_CONFIG of
 * just these bytes. (QEMU reads the whole space instead; and back-ends built on libvhost-user
 * ignore the offset of a read.)
 *
 * Numbers are little-endian.
 */
export class DriverConfig implements ConfigTransport {
  readonly #connection: () => FrontendConnection;

  /**
   * Reads and writes through a connection.
   *
   * @param connection Gives the connection of the moment
   */
  constructor(connection: () => FrontendConnection) {
    this.#connection = connection;
  }

  /** Reads bytes; a copy, the caller's. */
  read(offset: number, size: number): Promise<Uint8Array> {
    return this.#connection().getConfig(offset, size);
  }

  /** Writes bytes. */
  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#connection().setConfig(offset, data);
  }

  async #view(offset: number, size: number): Promise<DataView> {
    const bytes = await this.read(offset, size);
    return new DataView(bytes.buffer, bytes.byteOffset, size);
  }

  /** Reads a byte. */
  async u8(offset: number): Promise<number> {
    return (await this.#view(offset, 1)).getUint8(0);
  }

  /** Reads a u16. */
  async u16(offset: number): Promise<number> {
    return (await this.#view(offset, 2)).getUint16(0, true);
  }

  /** Reads a u32. */
  async u32(offset: number): Promise<number> {
    return (await this.#view(offset, 4)).getUint32(0, true);
  }

  /** Reads a u64. */
  async u64(offset: number): Promise<bigint> {
    return (await this.#view(offset, 8)).getBigUint64(0, true);
  }
}
