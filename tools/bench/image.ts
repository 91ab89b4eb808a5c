/** The files that are served. */
import { readFully, writeAll } from "../lib/process.ts";
import { BLOCK_BYTES, BLOCK_WORDS, hasStamp, stampBlock } from "./pattern.ts";
import { ToolError } from "../lib/tool_error.ts";

/** What is written and read at once. */
const CHUNK_BLOCKS = 1024;

/** A file in which each block has a stamp, and what is known of it. */
export class Image {
  /** By block: the generation that it has. Load threads keep it. */
  readonly generations: Int32Array<SharedArrayBuffer>;
  /** Writers, by generation. */
  readonly #writers = ["the preparation"];

  private constructor(readonly path: string, readonly blocks: number) {
    this.generations = new Int32Array(new SharedArrayBuffer(blocks * 4));
  }

  /** Makes a file; what it holds is on its disk when this returns. */
  static async create(path: string, bytes: number): Promise<Image> {
    const image = new Image(path, bytes / BLOCK_BYTES);
    const words = new Uint32Array(CHUNK_BLOCKS * BLOCK_WORDS);
    // Something that neither is zero nor can be compressed.
    for (let i = 0, value = 1; i < words.length; i++) {
      words[i] = value = Math.imul(value, 1_664_525) + 1_013_904_223;
    }
    using file = await Deno.open(path, { write: true, createNew: true });
    for (let block = 0; block < image.blocks; block++) {
      const at = block % CHUNK_BLOCKS;
      stampBlock(words, at * BLOCK_WORDS, block, 0);
      const isLast = at === CHUNK_BLOCKS - 1 || block === image.blocks - 1;
      if (isLast) await writeAll(file, new Uint8Array(words.buffer, 0, (at + 1) * BLOCK_BYTES));
    }
    await file.sync();
    return image;
  }

  /** A new generation, for one that is going to write. */
  nextGeneration(writer: string): number {
    return this.#writers.push(writer) - 1;
  }

  /** Waits until what was written is on the disk, so that it disturbs no one. */
  async settle(): Promise<void> {
    using file = await Deno.open(this.path, { read: true });
    await file.syncData();
  }

  /** Reads all of it. */
  async verify(): Promise<void> {
    const words = new Uint32Array(CHUNK_BLOCKS * BLOCK_WORDS);
    const bytes = new Uint8Array(words.buffer);
    using file = await Deno.open(this.path, { read: true });
    for (let block = 0; block < this.blocks;) {
      const read = await readFully(file, bytes);
      if (read === 0) throw new ToolError(`Expected ${this.blocks} blocks, got ${block}`);
      for (let at = 0; at < read / BLOCK_BYTES; at++, block++) {
        const generation = this.generations[block];
        if (hasStamp(words, at * BLOCK_WORDS, block, generation)) continue;
        throw new ToolError(
          `Expected block ${block} of ${this.path} as ${this.#writers[generation]} wrote it last`,
        );
      }
    }
  }
}
