/**
 * A queue thread in a test of mapped files: it makes random requests until it is told to stop.
 *
 * @module
 */

import { attachLocalStore } from "../../../backends/blk/stores.ts";
import type { FileHandle, StoreRequest } from "../../../backends/blk/store.ts";
import { addressOf, Errno, pinnedBuffer } from "../../../src/linux/mod.ts";
import { Parts } from "../../../src/virtqueue/mod.ts";
import { Random } from "../../../tools/lib/random.ts";

/** What a thread is to do. */
export interface MappedOrder {
  handle: FileHandle;
  /** The size of the disk, in bytes. */
  bytes: number;
  seed: number;
  /** Word 0 is set to end it. */
  control: SharedArrayBuffer;
  /** Of the words that count its requests, and those that had no space. */
  words: { requests: number; full: number };
}

/** The number of requests by errno. */
export type MappedOutcome = Record<number, number>;

/** Its messages: that it starts, and its result. */
export type MappedMessage = "begins" | MappedOutcome;

const PAGE_BYTES = 4096;
const MAX_PAGES = 64;

const u8 = new Uint8Array(pinnedBuffer(MAX_PAGES * PAGE_BYTES));

declare const self: {
  onmessage: (event: MessageEvent<MappedOrder>) => void;
  postMessage(message: MappedMessage): void;
};

self.onmessage = ({ data: { handle, bytes, seed, control, words } }) => {
  const store = attachLocalStore(handle, {
    memory: { u8, base: addressOf(u8) },
    io: undefined,
    done() {},
    flush() {},
  });
  const random = new Random(seed);
  const stop = new Int32Array(control);
  const outcomes: MappedOutcome = {};
  const pages = bytes / PAGE_BYTES;
  self.postMessage("begins");
  while (Atomics.load(stop, 0) === 0) {
    const count = random.between(1, Math.min(MAX_PAGES, pages));
    const data = new Parts(u8);
    data.push(0, count * PAGE_BYTES);
    const request: StoreRequest = {
      data,
      dataOffset: 0,
      offset: random.below(pages - count + 1) * PAGE_BYTES,
      bytes: count * PAGE_BYTES,
    };
    const kind = random.below(8);
    const outcome = kind < 4
      ? store.write(request)
      : kind < 6
      ? store.read(request)
      : kind === 6
      ? store.discard(request)
      : store.writeZeroes(request, true);
    outcomes[outcome as number] = (outcomes[outcome as number] ?? 0) + 1;
    if (outcome === 0) Atomics.add(stop, words.requests, 1);
    if (outcome === Errno.ENOSPC) Atomics.add(stop, words.full, 1);
    if (random.chance(1, 16)) store.submit?.();
    // Pauses after a failure.
    if (outcome === Errno.ENOSPC) Atomics.wait(stop, 0, 0, 1);
  }
  self.postMessage(outcomes);
};
