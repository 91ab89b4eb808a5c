/**
 * A load on a disk that verifies every block that it writes.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { BlkDriver, blkStatus, type VirtioDriver } from "../../../src/frontend/mod.ts";

const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;

/** The blocks of each lane. */
const BLOCKS_PER_LANE = 8;

/** The shape of a load. */
export interface LoadShape {
  /** The number of queues. */
  queues: number;
  /** The number of lanes per queue, each with one request at a time. */
  lanes: number;
}

/** The size of the disk that a load needs. */
export function diskBytes({ queues, lanes }: LoadShape): number {
  return queues * lanes * BLOCKS_PER_LANE * BLOCK_BYTES;
}

/** The content of a block after this number of writes. */
function contents(block: number, generation: number): Uint8Array<ArrayBuffer> {
  if (generation === 0) return new Uint8Array(BLOCK_BYTES);
  const words = new Uint32Array(BLOCK_BYTES / 4);
  let x = block * 0x9e37_79b1 + generation * 0x85eb_ca6b | 1;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}

/** Lanes that write blocks and read them back, until they are told to stop. */
export class VerifiedLoad {
  readonly #disk: BlkDriver;
  readonly #lanes: Promise<void>;
  readonly #generations: number[];
  #stopping = false;
  #isOpen = Promise.resolve();
  #verified = 0;
  #onProgress: (() => void)[] = [];

  /** Starts the load. */
  constructor(driver: VirtioDriver, { queues, lanes }: LoadShape) {
    this.#disk = new BlkDriver(driver);
    this.#generations = new Array(queues * lanes * BLOCKS_PER_LANE).fill(0);
    this.#lanes = Promise.all(
      Array.from({ length: queues * lanes }, (_, lane) => this.#run(lane, lane % queues)),
    ).then(() => {});
    // Handled at the end, and by a wait for progress.
    this.#lanes.catch(() => {});
  }

  /** The number of blocks that were read back and verified. */
  get verified(): number {
    return this.#verified;
  }

  async #run(lane: number, queue: number): Promise<void> {
    for (let round = 0; !this.#stopping; round++) {
      const block = lane * BLOCKS_PER_LANE + round % BLOCKS_PER_LANE;
      const sector = block * SECTORS_PER_BLOCK;
      await this.#isOpen;
      const data = contents(block, ++this.#generations[block]);
      const { status } = await this.#disk.write(sector, data, { queue });
      assertEquals(status, blkStatus.OK);
      await this.#isOpen;
      await this.#expect(block, queue);
    }
  }

  /**
   * Makes no request until the returned function is called: while the driver is stopped, requests
   * from before may still complete.
   */
  pause(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#isOpen = promise;
    return resolve;
  }

  async #expect(block: number, queue: number): Promise<void> {
    const read = await this.#disk.read(block * SECTORS_PER_BLOCK, BLOCK_BYTES, { queue });
    assertEquals(read.status, blkStatus.OK);
    const generation = this.#generations[block];
    const expected = contents(block, generation);
    assertEquals(read.data, expected, `block ${block}, written ${generation} times`);
    this.#verified++;
    for (const check of this.#onProgress) check();
  }

  /** Resolves when this many more blocks were verified. */
  async progress(blocks: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wanted = this.#verified + blocks;
    const check = () => this.#verified >= wanted && resolve();
    this.#onProgress.push(check);
    // Progress ends when a lane fails.
    await Promise.race([promise, this.#lanes]);
    this.#onProgress = this.#onProgress.filter((other) => other !== check);
  }

  /** Stops, and verifies every block once more. */
  async end(): Promise<void> {
    this.#stopping = true;
    await this.#lanes;
    for (const block of this.#generations.keys()) await this.#expect(block, 0);
  }

  /** The expected content of the whole disk. */
  contents(): Uint8Array<ArrayBuffer> {
    const disk = new Uint8Array(this.#generations.length * BLOCK_BYTES);
    for (const [block, generation] of this.#generations.entries()) {
      disk.set(contents(block, generation), block * BLOCK_BYTES);
    }
    return disk;
  }
}
