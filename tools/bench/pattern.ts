/**
 * What the blocks of an image hold, so that each block tells which one it is and which write it is
 * of.
 */

/** The unit in which images are filled and verified. */
export const BLOCK_BYTES = 4096;

/** How many words of 32 bits a block has. */
export const BLOCK_WORDS = BLOCK_BYTES / 4;

/** The first and the last word of a block. The generation says which write of the image it is of. */
export function blockWord(block: number, generation: number): number {
  return (Math.imul(block + 1, 0x9e3779b1) ^ Math.imul(generation + 1, 0x85ebca6b)) >>> 0;
}

type Words = Uint32Array<ArrayBuffer>;

export function stampBlock(words: Words, at: number, block: number, generation: number): void {
  const word = blockWord(block, generation);
  words[at] = word;
  words[at + BLOCK_WORDS - 1] = word;
}

export function hasStamp(words: Words, at: number, block: number, generation: number): boolean {
  const word = blockWord(block, generation);
  return words[at] === word && words[at + BLOCK_WORDS - 1] === word;
}
