/**
 * The guarded mappings, shared by the guard and its watcher.
 *
 * @module
 */

/** How many mappings can be guarded at once. */
export const MAX_GUARDED = 2048;

/** Fields of an entry. All are numbers of at most 53 bits. */
export const Guarded = {
  /** 0 where the entry is free. */
  ID: 0,
  ADDRESS: 1,
  /** How much of it still shows its file. */
  BYTES: 2,
  /** A descriptor of its file. */
  FD: 3,
  /** Where in the file it begins. */
  FILE_OFFSET: 4,
  /** The unit in which it is mapped. */
  PAGE_BYTES: 5,
  /** When the file had last been changed. */
  CHANGED_AT: 6,
} as const;

const FIELDS = 8;
const LOCK_BYTES = 8;

/**
 * A table of mappings in shared memory, with a lock. A thread holds the lock for a few system calls
 * at most, and touches no guest memory meanwhile.
 */
export class GuardTable {
  /** The memory of the table. */
  readonly memory: SharedArrayBuffer;
  readonly #lock: Int32Array;
  readonly #entries: Float64Array[];

  /** Makes a table, or uses the memory of one that another thread made. */
  constructor(memory = new SharedArrayBuffer(LOCK_BYTES + MAX_GUARDED * FIELDS * 8)) {
    this.memory = memory;
    this.#lock = new Int32Array(memory, 0, 1);
    this.#entries = Array.from(
      { length: MAX_GUARDED },
      (_, i) => new Float64Array(memory, LOCK_BYTES + i * FIELDS * 8, FIELDS),
    );
  }

  /** Runs `work` on the entries with the lock held; see {@linkcode Guarded}. */
  locked<T>(work: (entries: readonly Float64Array[]) => T): T {
    while (Atomics.compareExchange(this.#lock, 0, 0, 1) !== 0) Atomics.wait(this.#lock, 0, 1);
    try {
      return work(this.#entries);
    } finally {
      Atomics.store(this.#lock, 0, 0);
      Atomics.notify(this.#lock, 0, 1);
    }
  }
}
