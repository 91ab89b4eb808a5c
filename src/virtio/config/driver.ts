/**
 * The driver's side of the self-describing layout: finds fields, acknowledges bits, sets the status.
 *
 * @module
 */

import { CONFIG_SIZE_MAX } from "./fields.ts";
import { ConfigAccessError } from "./error.ts";
import { CONFIG_STATUS, CONFIG_USED } from "./self_describing.ts";

/** A driver's access to a device's config space. */
export interface ConfigTransport {
  /** Reads `size` bytes from `offset` on. */
  read(offset: number, size: number): Uint8Array | Promise<Uint8Array>;
  /** Writes bytes from `offset` on. */
  write(offset: number, data: Uint8Array): void | Promise<void>;
}

/** A field that the driver found and marked. */
export interface FoundField {
  /** Its type number. */
  readonly type: number;
  /** Offset of its data in config space, in bytes. */
  readonly offset: number;
  /** A copy of its data when it was found. */
  readonly data: Uint8Array;
}

/**
 * A driver of a self-describing config space. Overlapping calls run one after the other. Errors of
 * the transport pass through.
 *
 * @example Usage
 * ```ts
 * import { SelfDescribingDriver } from "./driver.ts";
 * import { bitField, field, selfDescribing } from "./self_describing.ts";
 * import { ConfigSpace } from "./space.ts";
 * import { u16 } from "./fields.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const space = new ConfigSpace(selfDescribing({
 *   limit: field(5, u16("Degrees")),
 *   features: bitField(6, { ALARM: 0 }),
 * }));
 * const driver = new SelfDescribingDriver({
 *   read: (offset, size) => space.read(offset, size),
 *   write: (offset, data) => void space.write(offset, data),
 * });
 *
 * assertEquals((await driver.find(5))?.data.length, 2);
 * assertEquals(await driver.find(5), undefined); // never the same field twice
 * const features = await driver.find(6);
 * assertEquals(await driver.acknowledge(features, 0), true);
 * assertEquals(space.view.features.acknowledged("ALARM"), true);
 * ```
 */
export class SelfDescribingDriver {
  readonly #transport: ConfigTransport;
  #last: Promise<unknown> = Promise.resolve();

  /** A driver over this transport. */
  constructor(transport: ConfigTransport) {
    this.#transport = transport;
  }

  /**
   * Finds the first unused field of a type and marks it as used; returns undefined if none is left.
   *
   * @throws {ConfigAccessError} if the space has no end within 256 bytes
   */
  find(type: number): Promise<FoundField | undefined> {
    return this.#inTurn(async () => {
      for (let at = 0; at < CONFIG_SIZE_MAX;) {
        const found = await this.#byte(at);
        if (found === 0) return undefined;
        const length = await this.#byte(at + 1);
        if (found === type) {
          const offset = at + 2;
          const data = length === 0 ? new Uint8Array() : await this.#transport.read(offset, length);
          await this.#transport.write(at, Uint8Array.of(type | CONFIG_USED));
          return { type, offset, data };
        }
        at += 2 + length;
      }
      throw new ConfigAccessError(
        `Cannot find config field type ${type}: the space has no end within ${CONFIG_SIZE_MAX} bytes`,
      );
    });
  }

  /**
   * Acknowledges one bit of a bit field if the device offers it, and returns whether it does. A
   * field that was not found offers nothing.
   */
  acknowledge(field: FoundField | undefined, bit: number): Promise<boolean> {
    return this.#inTurn(async () => {
      if (field === undefined || !Number.isInteger(bit) || bit < 0) {
        return false;
      }
      const half = field.data.length >> 1;
      const index = bit >> 3;
      if (index >= half) return false;
      const mask = 1 << (bit & 7);
      const at = field.offset + index;
      if (!(await this.#byte(at) & mask)) return false;
      const acknowledged = await this.#byte(at + half);
      await this.#transport.write(at + half, Uint8Array.of(acknowledged | mask));
      return true;
    });
  }

  /** Adds bits to the status byte, those of `CONFIG_STATUS`. */
  status(field: FoundField, bits: number): Promise<void> {
    return this.#inTurn(async () => {
      // Reading first also renews the copy of the space that QEMU keeps
      const status = await this.#byte(field.offset);
      await this.#transport.write(field.offset, Uint8Array.of(status | bits));
    });
  }

  /**
   * Resets the space by writing 0 to its status byte: fields found before are void, and every field
   * can be found again.
   */
  reset(field: FoundField): Promise<void> {
    return this.#inTurn(async () => {
      // Only a change to 0 is a reset: QEMU sends the whole space with each write, also where the
      // status is 0 already
      if (await this.#byte(field.offset) === 0) {
        await this.#transport.write(field.offset, Uint8Array.of(CONFIG_STATUS.ACKNOWLEDGE));
      }
      await this.#transport.write(field.offset, Uint8Array.of(0));
    });
  }

  async #byte(offset: number): Promise<number> {
    return (await this.#transport.read(offset, 1))[0];
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#last.then(step);
    this.#last = result.catch(() => {});
    return result;
  }
}
