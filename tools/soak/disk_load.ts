/** A load on a disk that checks every block that it writes. */
import { BlkDriver, type BlkResult, blkStatus } from "../../src/frontend/mod.ts";
import type { Random } from "../lib/random.ts";
import { type Tally, Trouble } from "./actor.ts";
import { BLOCK_BYTES, DiskContent, UNKNOWN } from "./disk_content.ts";
import type { ServedActor } from "./served.ts";
import { ToolError } from "../lib/tool_error.ts";

const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;

/** How many lanes, each with one request at a time. */
const LANES = 16;
const BLOCKS_PER_LANE = 128;
const BLOCKS = LANES * BLOCKS_PER_LANE;

const MAX_BLOCKS = 8;

/** The longest that a lane rests after a round: others want the processors too. */
const MAX_REST_MS = 4;

/** The size of the disk that a load needs. */
export const DISK_BYTES = BLOCKS * BLOCK_BYTES;

/** From here on a disk's file may be cut off for a while. */
export const TAIL_BYTES = DISK_BYTES * 3 / 4;

/** Lanes that write blocks and read them back. */
export class DiskLoad {
  /** The file system is full: writes may fail, and what they leave is anything. */
  readonly full = new Trouble();
  /** The tail is cut off: what happens there is anything, and what was there is gone. */
  readonly cut = new Trouble();
  readonly #disk: BlkDriver;
  readonly #tally: Tally;
  readonly #content: DiskContent;
  readonly #random: Random;

  /** @param keepsNothing The disk keeps nothing, so that nothing can be checked */
  constructor(
    readonly served: ServedActor,
    readonly queues: number,
    readonly keepsNothing: boolean,
  ) {
    this.#disk = new BlkDriver(served.driver);
    this.#tally = served.tally;
    this.#random = served.world.random(`${served.tally.name} load`);
    this.#content = new DiskContent(BLOCKS, this.#random.u32());
  }

  async run(over: AbortSignal): Promise<void> {
    await Promise.all(Array.from({ length: LANES }, (_, lane) => this.#runLane(lane, over)));
  }

  async #runLane(lane: number, over: AbortSignal): Promise<void> {
    const random = this.#random;
    const isTail = lane * BLOCKS_PER_LANE * BLOCK_BYTES >= TAIL_BYTES;
    for (let round = 0; !over.aborted; round++) {
      const blocks = random.between(1, MAX_BLOCKS);
      const block = lane * BLOCKS_PER_LANE + random.below(BLOCKS_PER_LANE - blocks + 1);
      const queue = random.below(this.queues);
      await this.#write(block, blocks, queue, isTail);
      await this.#read(block, blocks, queue, isTail);
      if (random.chance(1, 16)) await this.#request(() => this.#disk.flush({ queue }), "flush");
      const { promise, resolve } = Promise.withResolvers<void>();
      setTimeout(resolve, random.below(MAX_REST_MS + 1));
      await promise;
    }
  }

  /** Writes blocks, or zeroes them, or gives them up. */
  async #write(block: number, blocks: number, queue: number, isTail: boolean): Promise<void> {
    const { generations } = this.#content;
    const [sector, sectors] = [block * SECTORS_PER_BLOCK, blocks * SECTORS_PER_BLOCK];
    const full = this.full.now, cut = this.cut.now;
    const kind = this.#random.below(10);
    let generation = this.#content.nextGeneration();
    let write: () => Promise<BlkResult>;
    if (kind === 0) {
      generation = 0;
      write = () => this.#disk.writeZeroes(sector, sectors, { unmap: true, queue });
    } else if (kind === 1) {
      generation = UNKNOWN;
      write = () => this.#disk.discard(sector, sectors, { queue });
    } else {
      const data = this.#content.bytes(block, blocks, generation);
      write = () => this.#disk.write(sector, data, { queue });
    }
    generations.fill(UNKNOWN, block, block + blocks);
    const { status } = await this.#send(write);
    const isCut = isTail && this.cut.since(cut);
    if (status !== blkStatus.OK) {
      if (!isCut && !this.full.since(full)) throw this.#wrong("write", block, blocks, status);
      this.#tally.refused++;
    } else if (!isCut) {
      generations.fill(generation, block, block + blocks);
    }
  }

  async #read(block: number, blocks: number, queue: number, isTail: boolean): Promise<void> {
    const cut = this.cut.now;
    const { status, data } = await this.#send(() =>
      this.#disk.read(block * SECTORS_PER_BLOCK, blocks * BLOCK_BYTES, { queue })
    );
    if (isTail && this.cut.since(cut)) {
      if (status !== blkStatus.OK) this.#tally.refused++;
      this.#content.generations.fill(UNKNOWN, block, block + blocks);
      return;
    }
    if (status !== blkStatus.OK) throw this.#wrong("read", block, blocks, status);
    if (this.keepsNothing) return;
    this.#tally.checkedBytes += this.#content.check(block, data);
  }

  /** Makes a request that may not fail. */
  async #request(make: () => Promise<BlkResult>, what: string): Promise<void> {
    const { status } = await this.#send(make);
    if (status !== blkStatus.OK) throw new ToolError(`A ${what} failed with status ${status}`);
  }

  async #send(make: () => Promise<BlkResult>): Promise<BlkResult> {
    await this.served.ready();
    const result = await make();
    this.#tally.requests++;
    return result;
  }

  #wrong(what: string, block: number, blocks: number, status: number): Error {
    return new ToolError(
      `A ${what} of ${blocks} blocks from ${block} failed with status ${status}`,
    );
  }

  loseTail(): void {
    this.#content.generations.fill(UNKNOWN, TAIL_BYTES / BLOCK_BYTES);
  }

  async readAll(): Promise<void> {
    for (let block = 0; block < BLOCKS; block += MAX_BLOCKS) {
      await this.#read(block, MAX_BLOCKS, block / MAX_BLOCKS % this.queues, false);
    }
  }

  /** Compares the disk's file; the device has ended. */
  async checkFile(path: string): Promise<void> {
    const bytes = (await Deno.readFile(path)).subarray(0, DISK_BYTES);
    this.#tally.checkedBytes += this.#content.check(0, bytes);
  }
}
