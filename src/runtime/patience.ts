/**
 * Time limits for waiting.
 *
 * @module
 */

/**
 * Time that a device has to complete its chains when a queue stops, and a thread to answer anything
 * else, in milliseconds. A disk that makes gigabytes durable needs many seconds, and a front-end
 * waits meanwhile.
 */
export const STOP_LIMIT_MS = 30_000;

/** Time that it has when the device ends, in milliseconds. */
const CLOSE_LIMIT_MS = 1_500;

/** Time after which a device that is still opening is told of, in milliseconds. */
const OPENING_NOTE_MS = 30_000;

/**
 * Tells the person who runs a device that a promise of its code has not settled for long. What a
 * device opens may take as long as it likes, but not without a word.
 *
 * @param what What is waited for: `open() of blk`.
 */
export async function noteSlow<T>(
  work: Promise<T> | T,
  what: string,
  log: (message: string) => void,
  noteMs: number = OPENING_NOTE_MS,
): Promise<T> {
  const timer = setTimeout(
    () => log(`Expected ${what} to end within ${noteMs / 1000} s; still waiting`),
    noteMs,
  );
  try {
    return await work;
  } finally {
    clearTimeout(timer);
  }
}

/** Time limits, which become shorter when the device closes, also for pending waits. */
export class Patience {
  /** Time that a device has to complete its chains. */
  readonly limitMs: number;
  readonly #shorten = new Set<() => void>();
  #isOver = false;

  /** @param limitMs Time that a device has to complete its chains. */
  constructor(limitMs: number = STOP_LIMIT_MS) {
    this.limitMs = limitMs;
  }

  /** The device closes: shortens all limits. */
  end(): void {
    this.#isOver = true;
    for (const shorten of this.#shorten) shorten();
  }

  /**
   * Waits for `work` up to `ms`, and up to `closeMs` when the device ends.
   *
   * @returns Its result; undefined if it has none in that time.
   * @throws Its rejection, if it comes in that time.
   */
  async within<T>(
    work: Promise<T>,
    ms: number = this.limitMs,
    closeMs: number = CLOSE_LIMIT_MS,
  ): Promise<{ value: T } | undefined> {
    const late = Promise.withResolvers<undefined>();
    const start = (ms: number) => setTimeout(() => late.resolve(undefined), ms);
    let timer = start(this.#isOver ? Math.min(ms, closeMs) : ms);
    const shorten = () => {
      clearTimeout(timer);
      timer = start(closeMs);
    };
    if (closeMs < ms) this.#shorten.add(shorten);
    try {
      return await Promise.race([work.then((value) => ({ value })), late.promise]);
    } finally {
      clearTimeout(timer);
      this.#shorten.delete(shorten);
    }
  }
}
