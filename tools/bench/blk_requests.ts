/** Block requests: virtio 1.3, 5.2.6. */
import {
  blkRequests,
  blkStatus,
  type DriverMemory,
  type DriverRing,
} from "../../src/frontend/mod.ts";
import type { Operation } from "./cells.ts";
import { BLOCK_BYTES, BLOCK_WORDS, blockWord, hasStamp, stampBlock } from "./pattern.ts";
import type { Requests } from "./requests.ts";
import { ToolError } from "../lib/tool_error.ts";

/** A slot's header and status share a cache line, as in Linux's driver. */
const SLOT_BYTES = 64;
const SLOT_WORDS = SLOT_BYTES / 4;
const HEADER_BYTES = 16;
const STATUS = HEADER_BYTES;

const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;

/** A status that no device writes. */
const UNTOUCHED = 255;

/** How block requests are made. All of it can be sent to another thread. */
export interface BlkRequestsOptions extends Operation {
  depth: number;
  /** Guest physical address of memory for them, of {@linkcode blkRequestsBytes} bytes. */
  gpa: number;
  /** The first block of the store that they use. */
  firstBlock: number;
  /** How many blocks they use; a multiple of those of one request. */
  blocks: number;
  isIndirect: boolean;
  /** By block: the generation it has. Without it, data means nothing. */
  generations?: Int32Array<SharedArrayBuffer>;
  /** The generation of what is written. */
  generation: number;
  /** Decides on the places; not 0. */
  seed: number;
}

/** How much memory requests need. */
export function blkRequestsBytes(depth: number, bytes: number): number {
  return Math.ceil(depth * SLOT_BYTES / BLOCK_BYTES) * BLOCK_BYTES + depth * bytes;
}

/** Block requests of one operation, each looked at when it comes back. */
export class BlkRequests implements Requests {
  readonly depth: number;
  readonly #isWrite: boolean;
  readonly #isIndirect: boolean;
  readonly #isSequential: boolean;
  readonly #bytes: number;
  readonly #blocksEach: number;
  readonly #written: number;
  readonly #slotsGpa: number;
  readonly #dataGpa: number;
  readonly #headers: Uint32Array<ArrayBuffer>;
  readonly #slots: Uint8Array<ArrayBuffer>;
  readonly #data: Uint32Array<ArrayBuffer>;
  readonly #generations: Int32Array<SharedArrayBuffer> | undefined;
  readonly #generation: number;
  readonly #firstBlock: number;
  readonly #places: number;
  /** By slot: the first block of its request. */
  readonly #blocks: Uint32Array<ArrayBuffer>;
  #random: number;
  #place = 0;

  constructor(memory: DriverMemory, options: BlkRequestsOptions) {
    const { depth, bytes, gpa, isWrite } = options;
    this.depth = depth;
    this.#isWrite = isWrite;
    this.#isIndirect = options.isIndirect;
    this.#isSequential = options.isSequential;
    this.#bytes = bytes;
    this.#blocksEach = bytes / BLOCK_BYTES;
    this.#written = isWrite ? 1 : bytes + 1;
    this.#slotsGpa = gpa;
    this.#dataGpa = gpa + blkRequestsBytes(depth, 0);
    const slots = memory.locate(gpa, depth * SLOT_BYTES);
    this.#headers = new Uint32Array(slots.buffer, slots.offset, depth * SLOT_WORDS);
    this.#slots = new Uint8Array(slots.buffer, slots.offset, depth * SLOT_BYTES);
    const data = memory.locate(this.#dataGpa, depth * bytes);
    this.#data = new Uint32Array(data.buffer, data.offset, depth * bytes / 4);
    this.#generations = options.generations;
    this.#generation = options.generation;
    this.#firstBlock = options.firstBlock;
    this.#places = Math.floor(options.blocks / this.#blocksEach);
    this.#blocks = new Uint32Array(depth);
    this.#random = options.seed | 0;
    this.#slots.fill(0);
    const type = isWrite ? blkRequests.OUT : blkRequests.IN;
    for (let slot = 0; slot < depth; slot++) this.#headers[slot * SLOT_WORDS] = type;
  }

  add(ring: DriverRing, slot: number): number {
    const block = this.#firstBlock + this.#nextPlace() * this.#blocksEach;
    this.#blocks[slot] = block;
    this.#headers[slot * SLOT_WORDS + 2] = block * SECTORS_PER_BLOCK;
    this.#slots[slot * SLOT_BYTES + STATUS] = UNTOUCHED;
    if (this.#isWrite && this.#generations !== undefined) this.#stamp(slot, block);
    const gpa = this.#slotsGpa + slot * SLOT_BYTES;
    if (!ring.begin(3, this.#isIndirect)) {
      throw new ToolError("Expected room in the ring, got none");
    }
    ring.descriptor(gpa, HEADER_BYTES, false);
    ring.descriptor(this.#dataGpa + slot * this.#bytes, this.#bytes, !this.#isWrite);
    ring.descriptor(gpa + STATUS, 1, true);
    return ring.end();
  }

  /** The place of the next request, in units of its size. */
  #nextPlace(): number {
    if (this.#isSequential) {
      const place = this.#place;
      this.#place = place + 1 === this.#places ? 0 : place + 1;
      return place;
    }
    // xorshift32
    let random = this.#random;
    random ^= random << 13;
    random ^= random >>> 17;
    random ^= random << 5;
    this.#random = random;
    return (random >>> 0) % this.#places;
  }

  #stamp(slot: number, block: number): void {
    const at = slot * this.#blocksEach * BLOCK_WORDS;
    for (let i = 0; i < this.#blocksEach; i++) {
      stampBlock(this.#data, at + i * BLOCK_WORDS, block + i, this.#generation);
    }
  }

  check(slot: number, written: number): void {
    const status = this.#slots[slot * SLOT_BYTES + STATUS];
    if (status !== blkStatus.OK || written !== this.#written) this.#fail(slot, status, written);
    const generations = this.#generations;
    if (generations === undefined) return;
    const block = this.#blocks[slot];
    const at = slot * this.#blocksEach * BLOCK_WORDS;
    for (let i = 0; i < this.#blocksEach; i++) {
      if (this.#isWrite) generations[block + i] = this.#generation;
      else if (!hasStamp(this.#data, at + i * BLOCK_WORDS, block + i, generations[block + i])) {
        this.#failData(block + i, at + i * BLOCK_WORDS, generations[block + i]);
      }
    }
  }

  #fail(slot: number, status: number, written: number): never {
    throw new ToolError(
      `Expected status 0 and ${this.#written} bytes written of a ${
        this.#isWrite ? "write" : "read"
      } of block ${this.#blocks[slot]}, got status ${status} and ${written}`,
    );
  }

  #failData(block: number, at: number, generation: number): never {
    const [first, last] = [this.#data[at], this.#data[at + BLOCK_WORDS - 1]].map(hex);
    throw new ToolError(
      `Expected block ${block} to begin and end with ${
        hex(blockWord(block, generation))
      }, got ${first} and ${last}`,
    );
  }
}

function hex(word: number): string {
  return `0x${word.toString(16)}`;
}
