/**
 * Block requests as chains over plain memory, for unit tests.
 *
 * @module
 */

import fc from "fast-check";
import { Chain } from "../../../src/virtqueue/mod.ts";
import type { QueueHandle } from "../../../src/virtio/mod.ts";

/** The value of unwritten bytes. */
export const UNTOUCHED = 0xee;

/** A request to make a chain of. */
export interface ChainContent {
  /** The bytes that the device reads. */
  readable: Uint8Array;
  /** The number of bytes that the device can write, including the status. */
  writableBytes: number;
  /** The sizes of the readable parts; the rest is the last part. */
  readableParts?: readonly number[];
  /** The sizes of the writable parts. */
  writableParts?: readonly number[];
  slot?: number;
}

/** A chain and its memory. */
export interface TestChain {
  chain: Chain;
  u8: Uint8Array<ArrayBuffer>;
  /** The bytes that the device wrote, in the order of the parts. */
  written(): Uint8Array;
}

/** Makes a chain of separate parts, at odd addresses too. */
export function makeChain(content: ChainContent): TestChain {
  const { readable, writableBytes, readableParts = [], writableParts = [], slot = 0 } = content;
  const gaps = readableParts.length + writableParts.length + 3;
  const u8 = new Uint8Array(readable.length + writableBytes + gaps).fill(UNTOUCHED);
  const chain = new Chain(slot, u8);
  let at = 1;
  let from = 0;
  for (const bytes of divide(readable.length, readableParts)) {
    u8.set(readable.subarray(from, from + bytes), at);
    chain.readable.push(at, bytes);
    from += bytes;
    at += bytes + 1;
  }
  const places: [number, number][] = [];
  for (const bytes of divide(writableBytes, writableParts)) {
    chain.writable.push(at, bytes);
    places.push([at, bytes]);
    at += bytes + 1;
  }
  chain.end();
  return {
    chain,
    u8,
    written: () =>
      Uint8Array.from(places.flatMap(([at, bytes]) => [...u8.subarray(at, at + bytes)])),
  };
}

function divide(bytes: number, parts: readonly number[]): number[] {
  const lengths: number[] = [];
  for (const wanted of parts) {
    const length = Math.min(wanted, bytes);
    lengths.push(length);
    bytes -= length;
  }
  return bytes > 0 ? [...lengths, bytes] : lengths;
}

/** Random divisions into parts, also empty ones. */
export const anyDivision: fc.Arbitrary<number[]> = fc.array(fc.nat(20), { maxLength: 8 });

/** struct virtio_blk_req, up to the data. */
export function header(type: number, sector: number | bigint): Uint8Array {
  const bytes = new Uint8Array(16).fill(0x77, 4, 8); // reserved: to be ignored
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return bytes;
}

/** struct virtio_blk_discard_write_zeroes. */
export function segment(sector: number | bigint, sectors: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(sector), true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return bytes;
}

/** Concatenates bytes. */
export function join(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A queue that remembers what was completed. */
export class TestQueue implements QueueHandle {
  readonly index: number;
  readonly name = "requestq";
  readonly ordinal = 0;
  readonly isRunning = true;
  readonly completed: [chain: Chain, written: number][] = [];
  /** The number of calls of `hold`. */
  holds = 0;

  constructor(index = 0) {
    this.index = index;
  }

  take(): null {
    return null;
  }

  complete(chain: Chain, written: number): void {
    this.completed.push([chain, written]);
  }

  untake(): never {
    throw new Error("Expected a chain that was taken from this queue");
  }

  flush(): void {}

  resume(): void {}

  hold(): void {
    this.holds++;
  }

  fail(error: Error): never {
    throw error;
  }
}
