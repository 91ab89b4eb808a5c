/** What is wrong with a disk's storage, for a load that has to know which failures are right. */

/** Something that is wrong with storage at times. */
export class Trouble {
  /** Odd while it lasts. */
  #epoch = 0;

  /** It begins. */
  begin(): void {
    this.#epoch++;
  }

  /** It is over. */
  end(): void {
    this.#epoch++;
  }

  /** A moment, for {@linkcode Trouble.since}. */
  get now(): number {
    return this.#epoch;
  }

  /** Whether there was any from a moment to now. */
  since(moment: number): boolean {
    return moment !== this.#epoch || moment % 2 === 1;
  }
}
