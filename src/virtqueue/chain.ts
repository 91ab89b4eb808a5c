/**
 * Descriptor chains as devices see them: checked, and in place in guest memory.
 *
 * @module
 */

import type { MemoryView } from "../memory/mod.ts";
import { MAX_INDIRECT_DESCRIPTORS } from "./descriptor.ts";
import { Parts } from "./parts.ts";
import { RingError, type RingLayout, type RingRule } from "./rules.ts";

/** The most bytes that one chain may have: virtio 1.3, 2.7.5.2. */
const MAX_CHAIN_BYTES = 2 ** 32;

/** The number of parts whose room a chain keeps for its next use. */
const KEPT_PARTS = 128;

/**
 * One request of the driver: device-readable parts, then device-writable ones. It was read once and
 * checked whole. Each slot of a queue has one chain object, which later requests use again.
 */
export class Chain {
  /** A number below the queue's size that no other chain in flight has. */
  readonly slot: number;
  /** What the driver wrote for the device. */
  readonly readable: Parts;
  /** Where the device writes for the driver. */
  readonly writable: Parts;
  /** The number of device-writable bytes. */
  writableBytes = 0;
  /** The number of device-readable bytes. */
  readableBytes = 0;
  /** The number of descriptors, those of an indirect table included. */
  descriptors = 0;
  /** Whether the device has it. */
  inFlight = false;
  /** The start of the queue that it belongs to: a completion after another start is dropped. */
  epoch = 0;
  /**
   * By what the driver knows it: the index of its first descriptor, or its buffer ID.
   *
   * @internal
   */
  id = -1;
  /**
   * The number of its span, while the framework measures it; else -1.
   *
   * @internal
   */
  span = -1;
  /**
   * The number of descriptors of a packed ring.
   *
   * @internal
   */
  ringDescriptors = 0;
  /**
   * The number of parts of guest memory.
   *
   * @internal
   */
  parts = 0;
  /**
   * The slot of the chain that was taken before it; -1 for the first.
   *
   * @internal
   */
  previous = -1;
  /**
   * Whether it was in flight when the ring began, and so is not taken from the ring.
   *
   * @internal
   */
  isResubmitted = false;
  /**
   * The bytes written, while the completion waits for earlier chains (VIRTIO_F_IN_ORDER); else -1.
   *
   * @internal
   */
  held = -1;

  #isAbandoned = false;
  #layout: RingLayout = "split";
  readonly #mostParts: number;

  /** Makes the chain of a slot, for at most `mostParts` parts. */
  constructor(slot: number, u8: Uint8Array<ArrayBuffer>, mostParts = MAX_INDIRECT_DESCRIPTORS) {
    this.slot = slot;
    this.#mostParts = mostParts;
    this.readable = new Parts(u8);
    this.writable = new Parts(u8);
  }

  /**
   * Empties it for the next request.
   *
   * @internal
   */
  begin(id: number, u8: Uint8Array<ArrayBuffer>, layout: RingLayout): void {
    this.id = id;
    this.#layout = layout;
    this.readable.clear(u8);
    this.writable.clear(u8);
    this.descriptors = 0;
  }

  /**
   * Adds the buffer of a descriptor, whose words are in `words` from `at` on, once everything about
   * it is checked. A buffer that continues in the next region becomes several parts.
   *
   * @throws {RingError} When a rule is broken.
   *
   * @internal
   */
  add(memory: MemoryView, words: Uint32Array, at: number, writable: boolean): void {
    const bytes = words[at + 2];
    if (!writable && this.writable.count > 0) {
      this.#refuse(
        "writable-before-readable",
        `Descriptor ${this.descriptors} of the chain is device-readable after a device-writable one`,
      );
    }
    if (this.readable.byteLength + this.writable.byteLength + bytes > MAX_CHAIN_BYTES) {
      this.#refuse("chain-bytes", `A chain has more than ${MAX_CHAIN_BYTES} bytes`);
    }
    const parts = writable ? this.writable : this.readable;
    if (parts.place(memory.regions, words, at, bytes)) return;
    this.#addPieces(memory, words[at] + words[at + 1] * 2 ** 32, bytes, parts);
  }

  #addPieces(memory: MemoryView, gpa: number, bytes: number, parts: Parts): void {
    for (let at = gpa, left = bytes; left > 0 || at === gpa;) {
      const here = Math.min(memory.regions.contiguous(at), left);
      if (here === 0) {
        this.#refuse(
          "buffer-address",
          `A buffer is at 0x${gpa.toString(16)}+0x${bytes.toString(16)}`,
        );
      }
      this.#expectFewParts();
      parts.push(memory.regions.translate(at, here), here);
      at += here;
      left -= here;
    }
  }

  /**
   * Ends the reading.
   *
   * @internal
   */
  end(): void {
    this.readableBytes = this.readable.byteLength;
    this.writableBytes = this.writable.byteLength;
    this.parts = this.readable.count + this.writable.count;
    if (this.parts > this.#mostParts) this.#expectFewParts();
  }

  /** A buffer can be in many regions, so a limit on descriptors is not enough. */
  #expectFewParts(): void {
    if (this.readable.count + this.writable.count <= this.#mostParts) return;
    this.#refuse(
      "chain-length",
      `A chain is in more than ${this.#mostParts} parts of guest memory`,
    );
  }

  #refuse(rule: RingRule, got: string): never {
    throw new RingError(rule, got, this.#layout);
  }

  /**
   * The device returned it. Much room is not kept.
   *
   * @internal
   */
  returned(): void {
    this.inFlight = false;
    if (this.parts > KEPT_PARTS) this.release();
  }

  /**
   * The device cannot answer it.
   *
   * @internal
   */
  abandon(): void {
    this.#isAbandoned = true;
  }

  /**
   * Whether the device has it and may still answer it.
   *
   * @internal
   */
  get isHeld(): boolean {
    return this.inFlight && !this.#isAbandoned;
  }

  /**
   * Empties it for good: nothing is read or written through it any more.
   *
   * @internal
   */
  release(): void {
    this.readable.release();
    this.writable.release();
  }
}
