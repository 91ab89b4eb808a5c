/**
 * Whether the disk is write-back or write-through, as config space says it.
 *
 * The host is never less durable than any side believes. A front-end may keep a copy of config
 * space and pass on only what changes in it (QEMU 10 does), over a reset of the guest and over a
 * connection that is lost. A driver that finds write-through there sends no flush. So write-through
 * holds until config says otherwise again: a reset does not end it (virtio 1.3, 5.2.5: the mode
 * after a reset can be either), and neither does a new connection.
 *
 * @module
 */

// The values of writeback: virtio 1.3, 5.2.5
/** Writes are durable when they are completed. */
export const WRITE_THROUGH = 0;
/** Writes are durable after a flush. */
export const WRITE_BACK = 1;

/** The mode of one device, on the main thread. */
export class CacheMode {
  readonly #config: { writeback: number };
  /** What a reset leaves: the latest that a front-end has read or written. */
  #kept: number;
  /** Whether any front-end has read or written it since this device was opened. */
  #isTold = false;

  /**
   * @param config Config space, live.
   * @param initial The mode that it begins with.
   */
  constructor(config: { writeback: number }, initial: number) {
    this.#config = config;
    this.#kept = initial;
  }

  /** The mode of the moment, for people. */
  get name(): string {
    return this.#config.writeback === WRITE_THROUGH ? "write-through" : "write-back";
  }

  /** A front-end reads or has written config space: it knows what that says now. */
  read(): void {
    this.#isTold = true;
    this.#kept = this.#config.writeback;
  }

  /**
   * A driver wants to write the mode.
   *
   * @throws {RangeError} When there is no such mode.
   */
  check(writeback: number): void {
    if (writeback > WRITE_BACK) {
      throw new RangeError(`Expected 0 or 1 as writeback, got ${writeback}`);
    }
  }

  /** A driver acknowledged features. */
  negotiated({ FLUSH, CONFIG_WCE }: { FLUSH: boolean; CONFIG_WCE: boolean }): void {
    if (!CONFIG_WCE) return;
    if (!FLUSH) {
      // virtio 1.3, 5.2.5.2: a driver that cannot flush finds a write-through disk
      this.#config.writeback = WRITE_THROUGH;
    } else if (!this.#isTold) {
      // It goes by what an earlier process said, which is not known here: if there is a record of
      // it (SET_INFLIGHT_FD), that comes next
      this.#config.writeback = WRITE_THROUGH;
      this.read();
    }
  }

  /** The device is reset, or its connection ends. */
  reset(): void {
    this.#config.writeback = this.#kept;
  }
}
