/**
 * How long a thread looks for work before it sleeps.
 *
 * @module
 */

/** How many looks there are to a look at the clock. */
const LOOKS_PER_CLOCK = 32;

/**
 * Adapts the time of polling to what it brings: a thread that was woken soon
 * after it fell asleep would have done better to poll on; one that slept long
 * would not, so its next time is halved.
 */
export class Poller {
  readonly #mostMs: number;
  #windowMs: number;
  #endsAt = 0;
  #sleptAt = 0;
  #looks = 0;

  /** @param pollUs The longest time, in microseconds; 0 for never. */
  constructor(pollUs: number) {
    this.#mostMs = this.#windowMs = pollUs / 1000;
  }

  /** Whether polling follows when there is nothing to do. */
  get isOn(): boolean {
    return this.#mostMs > 0;
  }

  /** Begins to poll. */
  begin(): void {
    const now = performance.now();
    const slept = now - this.#sleptAt;
    this.#windowMs = slept < this.#mostMs ? this.#mostMs : this.#windowMs / 2;
    this.#endsAt = now + this.#windowMs;
  }

  /** Something came: the time begins anew. */
  found(): void {
    this.#endsAt = 0;
  }

  /** Whether to look once more. */
  goesOn(): boolean {
    if (this.#endsAt !== 0 && ++this.#looks % LOOKS_PER_CLOCK !== 0) return true;
    const now = performance.now();
    if (this.#endsAt === 0) {
      this.#windowMs = this.#mostMs;
      this.#endsAt = now + this.#windowMs;
    }
    return now < this.#endsAt;
  }

  /** The thread goes to sleep. */
  end(): void {
    this.#sleptAt = performance.now();
  }
}
