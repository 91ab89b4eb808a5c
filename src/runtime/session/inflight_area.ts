/**
 * The memory in which queues record what is in flight: made here, kept by the
 * front-end, and handed back by it each time rings are started. Behind the
 * records is room for what the driver wrote to config space.
 *
 * @module
 */

import { bufferAt, createMemfd, type Fd, Mapping, PAGE_BYTES } from "../../linux/mod.ts";
import {
  inspectMemoryFile,
  isSealedAgainstShrinking,
  sealOwn,
} from "../../linux/file/memory_file.ts";
import type { Inflight } from "../../vhost_user/mod.ts";
import type { ConfigLayout } from "../../virtio/mod.ts";
import { inflightBytes, type InflightRegion, MAX_QUEUE_SIZE } from "../../virtqueue/mod.ts";

import { KEPT_CONFIG_BYTES, KeptConfig } from "./kept_config.ts";

/** An area that cannot be made or used as asked. */
export class InflightAreaError extends Error {
  override name = "InflightAreaError";
}

/** Where a queue's record is: plain values, which travel to a thread. */
export interface InflightPlace {
  address: number;
  bytes: number;
  /** For how many descriptors it is. */
  descriptors: number;
}

/** A record where it is, on the thread that asks. The area must outlive its use. */
export function viewInflight({ address, bytes, descriptors }: InflightPlace): InflightRegion {
  return { bytes: new Uint8Array(bufferAt(address, bytes)), descriptors };
}

/**
 * Makes the file of an area that nobody has used yet.
 *
 * @param wanted How many queues there are, and how long each is
 * @param maxQueues How many the device has
 * @returns The file, the caller's, and what to say of it
 * @throws {InflightAreaError} When the device has no such queues.
 */
export function createInflightFile(
  { numQueues, queueSize }: Pick<Inflight, "numQueues" | "queueSize">,
  packed: boolean,
  maxQueues: number,
): { fd: Fd; description: Inflight } {
  expectShape(numQueues, queueSize, maxQueues);
  const bytes = pages(numQueues * inflightBytes(queueSize, packed) + KEPT_CONFIG_BYTES);
  const fd = createMemfd("vhostd-inflight", bytes);
  sealOwn(fd.number);
  return {
    fd,
    description: { mmapSize: BigInt(bytes), mmapOffset: 0n, numQueues, queueSize },
  };
}

/** An area, mapped. */
export class InflightArea implements Disposable {
  readonly #mapping: Mapping;
  readonly #numQueues: number;
  readonly #queueSize: number;
  readonly #packed: boolean;
  /** The bytes behind the records. */
  #rest: Uint8Array<ArrayBuffer>;

  /**
   * Maps the area that a front-end hands in, in a file that was sealed if it can be; the descriptor
   * stays the caller's.
   * What stands in it is not looked at yet.
   *
   * @throws {InflightAreaError} When it is not what it is said to be, or its
   * file could become shorter: a fault in it would end the process.
   */
  constructor(description: Inflight, fd: number, packed: boolean, maxQueues: number) {
    const { mmapSize, mmapOffset, numQueues, queueSize } = description;
    expectShape(numQueues, queueSize, maxQueues);
    const bytes = numQueues * inflightBytes(queueSize, packed);
    if (mmapSize < bytes || mmapOffset % BigInt(PAGE_BYTES) !== 0n) {
      throw new InflightAreaError(
        `Expected at least ${bytes} bytes at a page for ${numQueues} queues of ${queueSize}, got ${mmapSize} at ${mmapOffset}`,
      );
    }
    // The size that a sealed file has it keeps. Huge pages can be out of pages all the same.
    const file = isSealedAgainstShrinking(fd) ? inspectMemoryFile(fd) : undefined;
    if (file === undefined || file.blockBytes > PAGE_BYTES) {
      throw new InflightAreaError(
        "Expected a memory file that is sealed against shrinking, got one that can become shorter",
      );
    }
    if (BigInt(file.bytes) < mmapOffset + mmapSize) {
      throw new InflightAreaError(
        `Expected a file of at least ${mmapOffset + mmapSize} bytes, got ${file.bytes}`,
      );
    }
    const mapped = Math.min(Number(mmapSize), bytes + KEPT_CONFIG_BYTES);
    this.#mapping = new Mapping(fd, pages(mapped), Number(mmapOffset));
    this.#rest = new Uint8Array(this.#mapping.buffer, bytes, mapped - bytes);
    this.#numQueues = numQueues;
    this.#queueSize = queueSize;
    this.#packed = packed;
  }

  /**
   * The record of a queue with a ring of `size` descriptors; null if the area has
   * none for it, or one that is too small. (QEMU asks for as many as its device
   * has by default, but on virtio-mmio a driver may take more.)
   *
   * @throws {InflightAreaError} When the area was made for rings of the other layout.
   */
  place(queue: number, size: number, packed: boolean): InflightPlace | null {
    if (queue >= this.#numQueues || size > this.#queueSize) return null;
    if (packed !== this.#packed) {
      throw new InflightAreaError(
        `Expected an in-flight area for ${packed ? "packed" : "split"} rings, got the other one`,
      );
    }
    const bytes = inflightBytes(this.#queueSize, packed);
    return {
      address: this.#mapping.address + queue * bytes,
      bytes,
      descriptors: this.#queueSize,
    };
  }

  /** Where config space is kept; null in an area that others made without room for it. */
  keptConfig(layout: ConfigLayout): KeptConfig | null {
    return this.#rest.length < KEPT_CONFIG_BYTES ? null : new KeptConfig(this.#rest, layout);
  }

  /** Shows it at another address, for a thread may still touch the old one; no ring may be using it. */
  move(): void {
    this.#mapping.move();
    const { byteOffset, length } = this.#rest;
    this.#rest = new Uint8Array(this.#mapping.buffer, byteOffset, length);
  }

  /** Unmaps it; no ring may be using it. */
  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}

function expectShape(numQueues: number, queueSize: number, maxQueues: number): void {
  if (
    numQueues >= 1 && numQueues <= maxQueues && queueSize >= 1 && queueSize <= MAX_QUEUE_SIZE
  ) return;
  throw new InflightAreaError(
    `Expected up to ${maxQueues} queues of up to ${MAX_QUEUE_SIZE}, got ${numQueues} of ${queueSize}`,
  );
}

function pages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
