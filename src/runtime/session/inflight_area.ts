/**
 * The in-flight area: memory in which queues record their chains in flight. It is made here, kept by
 * the front-end, and handed back each time rings start. Config space is kept behind the records.
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

/** Place of a queue's record: plain values, which travel to a thread. */
export interface InflightPlace {
  address: number;
  bytes: number;
  /** Number of descriptors that it has room for. */
  descriptors: number;
}

/** Views a record on the calling thread. The area must outlive the view. */
export function viewInflight({ address, bytes, descriptors }: InflightPlace): InflightRegion {
  return { bytes: new Uint8Array(bufferAt(address, bytes)), descriptors };
}

/**
 * Makes the file of a new area.
 *
 * @param maxQueues Number of queues of the device
 * @returns The file, the caller's, and its description for the front-end
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
   * stays the caller's. Its content is not read yet.
   *
   * @throws {InflightAreaError} When it does not match its description, or its file could become
   * shorter: a fault in it would end the process.
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
    // A sealed file keeps its size, but a huge page can still be missing.
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
   * The record of a queue with a ring of `size` descriptors; null if the area has none for it, or
   * one that is too small. (QEMU asks for as many as its device has by default, but on virtio-mmio
   * a driver may take more.)
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

  /** Place of config space; null in an area that another back-end made without room for it. */
  keptConfig(layout: ConfigLayout): KeptConfig | null {
    return this.#rest.length < KEPT_CONFIG_BYTES ? null : new KeptConfig(this.#rest, layout);
  }

  /** Maps it at another address: an abandoned thread may touch the old one. No ring may be using it. */
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
