/** What the blocks of a disk contain. */
import { mix } from "../lib/random.ts";

/** The unit of what is written and checked. */
export const BLOCK_BYTES = 4096;

const WORDS = BLOCK_BYTES / 4;

/** The content of a block is not known until it is written again. */
export const UNKNOWN = -1;

/** Fills a block with its content after a number of writes; 0 stands for zeroes. */
function fillBlock(
  words: Uint32Array,
  block: number,
  generation: number,
  seed: number,
): void {
  if (generation === 0) return void words.fill(0);
  const start = mix(block ^ mix(generation ^ seed));
  for (let i = 0; i < WORDS; i++) words[i] = start + Math.imul(i, 0x9e3779b1);
}

export class DiskContent {
  /** How often each block was written; 0 for zeroes, or {@linkcode UNKNOWN}. */
  readonly generations: Int32Array;
  readonly #expected = new Uint32Array(WORDS);
  #written = 0;

  constructor(blocks: number, readonly seed: number) {
    this.generations = new Int32Array(blocks);
  }

  /** A number that no block had before. */
  nextGeneration(): number {
    return ++this.#written;
  }

  /** The bytes of some blocks of a generation. */
  bytes(block: number, blocks: number, generation: number): Uint8Array<ArrayBuffer> {
    const words = new Uint32Array(blocks * WORDS);
    for (let i = 0; i < blocks; i++) {
      fillBlock(words.subarray(i * WORDS, (i + 1) * WORDS), block + i, generation, this.seed);
    }
    return new Uint8Array(words.buffer);
  }

  /**
   * Compares what was read from a block on with what should be there; returns how many bytes were
   * compared.
   */
  check(block: number, bytes: Uint8Array<ArrayBuffer>): number {
    let checked = 0;
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES, block++) {
      const generation = this.generations[block];
      if (generation === UNKNOWN) continue;
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, WORDS);
      fillBlock(this.#expected, block, generation, this.seed);
      for (let i = 0; i < WORDS; i++) {
        if (words[i] === this.#expected[i]) continue;
        throw new Error(
          `Word ${i} of block ${block} is 0x${words[i].toString(16)}, and should be 0x${
            this.#expected[i].toString(16)
          } (generation ${generation})`,
        );
      }
      checked += BLOCK_BYTES;
    }
    return checked;
  }
}
