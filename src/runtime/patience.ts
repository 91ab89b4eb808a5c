/**
 * Waiting for what may never come, for a stated time.
 *
 * @module
 */

/**
 * How long a device has to complete what it took when a queue is to stop, and a
 * thread to answer anything else, in milliseconds. A disk that makes gigabytes
 * durable needs many seconds, and a front-end waits meanwhile.
 */
export const STOP_LIMIT_MS = 30_000;

/** How long it has when the device is to end, in milliseconds. */
export const CLOSE_LIMIT_MS = 1_500;

/** Waits for something at most so long; undefined if it was not there then. */
export async function within<T>(
  work: Promise<T>,
  ms: number,
): Promise<{ value: T } | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<undefined>((resolve) =>
    timer = setTimeout(() => resolve(undefined), ms)
  );
  try {
    return await Promise.race([work.then((value) => ({ value })), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Limits for waiting, which can become shorter while somebody waits. */
export class Patience {
  /** How long a device has to complete what it took. */
  readonly limitMs: number;
  readonly #waiting = new Set<() => void>();
  #isOver = false;

  /** @param limitMs How long a device has to complete what it took. */
  constructor(limitMs: number = STOP_LIMIT_MS) {
    this.limitMs = limitMs;
  }

  /** The device is to end: nobody waits long any more. */
  end(): void {
    this.#isOver = true;
    for (const shorten of this.#waiting) shorten();
  }

  /**
   * Waits for something at most so long, and no longer than
   * {@linkcode CLOSE_LIMIT_MS} when the device is to end.
   *
   * @returns What it came to; undefined if it did not.
   * @throws What it rejects with in that time.
   */
  async within<T>(work: Promise<T>, ms: number = this.limitMs): Promise<{ value: T } | undefined> {
    const late = Promise.withResolvers<undefined>();
    const end = () => late.resolve(undefined);
    let timer = setTimeout(end, this.#isOver ? Math.min(ms, CLOSE_LIMIT_MS) : ms);
    const shorten = () => {
      clearTimeout(timer);
      timer = setTimeout(end, Math.min(ms, CLOSE_LIMIT_MS));
    };
    this.#waiting.add(shorten);
    try {
      return await Promise.race([work.then((value) => ({ value })), late.promise]);
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(shorten);
    }
  }
}
