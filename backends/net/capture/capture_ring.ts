/**
 * Memory in which the thread of a pair leaves captured packets for the main thread.
 *
 * @module
 */

/** The bytes of captured packets of a pair that wait to be written. */
const MAX_BYTES = 2 ** 22;

/** Memory for both sides. */
export interface CapturePlan {
  /** The memory of each pair's ring. */
  readonly rings: readonly SharedArrayBuffer[];
  /** The most bytes of a frame that are captured. */
  readonly snapBytes: number;
}

// Words
const HEAD = 0, TAIL = 1, WRAP = 2, IDLE = 3;
// 64-bit floats
const CAPTURED = 2, LOST = 3;
const CONTROL_BYTES = 64;

/** The memory of a ring. */
export function ringMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(CONTROL_BYTES + MAX_BYTES);
}

/**
 * A ring of blocks with one writer and one reader. Each block lies in one piece: `WRAP` says where
 * those end that are not at the beginning of the memory. `HEAD` is where the next one goes, `TAIL`
 * where the first one is, and both are equal when there is none.
 */
export class CaptureRing {
  /** The memory of blocks. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  /** The same, as words. */
  readonly words: Uint32Array<SharedArrayBuffer>;
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #counts: Float64Array<SharedArrayBuffer>;
  /** Where the block that was reserved begins. */
  #at = 0;

  constructor(memory: SharedArrayBuffer) {
    this.bytes = new Uint8Array(memory, CONTROL_BYTES);
    this.words = new Uint32Array(memory, CONTROL_BYTES);
    this.#control = new Int32Array(memory, 0, 4);
    this.#counts = new Float64Array(memory, 0, CONTROL_BYTES / 8);
  }

  /** How many packets were captured; those that were lost are not among them. */
  get captured(): number {
    return this.#counts[CAPTURED];
  }

  /** How many packets had no room. */
  get lost(): number {
    return this.#counts[LOST];
  }

  /**
   * Reserves a place for a block.
   *
   * @returns Where it begins; -1 when there is no room, and the packet is counted as lost.
   */
  reserve(bytes: number): number {
    const head = this.#control[HEAD];
    const tail = Atomics.load(this.#control, TAIL);
    const end = head + bytes;
    if (head < tail ? end < tail : end < MAX_BYTES) return this.#at = head;
    if (head >= tail && bytes < tail) {
      this.#control[WRAP] = head;
      return this.#at = 0;
    }
    this.#counts[LOST]++;
    return -1;
  }

  /**
   * Gives the reader the block that was reserved.
   *
   * @returns Whether the reader has to be told, as it waits to be.
   */
  commit(bytes: number): boolean {
    this.#counts[CAPTURED]++;
    Atomics.store(this.#control, HEAD, this.#at + bytes);
    return Atomics.load(this.#control, IDLE) === 1 &&
      Atomics.compareExchange(this.#control, IDLE, 1, 0) === 1;
  }

  /** Takes the blocks that there are, in at most two pieces. */
  take(): Uint8Array<ArrayBuffer>[] {
    const head = Atomics.load(this.#control, HEAD);
    const tail = this.#control[TAIL];
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    if (head < tail) {
      if (this.#control[WRAP] > tail) pieces.push(this.bytes.slice(tail, this.#control[WRAP]));
      pieces.push(this.bytes.slice(0, head));
    } else if (head > tail) pieces.push(this.bytes.slice(tail, head));
    Atomics.store(this.#control, TAIL, head);
    return pieces as Uint8Array<ArrayBuffer>[];
  }

  /**
   * The reader asks to be told of the next block.
   *
   * @returns Whether it can wait for that; not when a block came meanwhile.
   */
  await(): boolean {
    Atomics.store(this.#control, IDLE, 1);
    return Atomics.load(this.#control, HEAD) === this.#control[TAIL];
  }
}
