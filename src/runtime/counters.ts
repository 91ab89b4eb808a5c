/**
 * Counters of a queue: its thread writes them, the control plane reads them at any time.
 *
 * @module
 */

const FIELDS = 8;

/** The counts of a queue. */
export interface QueueCounts {
  /** Chains that the device completed. */
  requests: number;
  /** Device-readable bytes of the chains that were taken. */
  bytesRead: number;
  /** Bytes that the device wrote to chains. */
  bytesWritten: number;
  /** Notifications from the driver. */
  kicks: number;
  /** Notifications to the driver. */
  notifications: number;
  /** Chains that the device has taken and not completed. */
  inFlight: number;
  /** Faults that broke the queue. */
  errors: number;
}

/** The memory for the counters of `queues` queues. */
export function counterMemory(queues: number): SharedArrayBuffer {
  return new SharedArrayBuffer(Math.max(queues, 1) * FIELDS * 8);
}

/**
 * The counters of one queue. Each has one writer and is an aligned 64-bit float, so a reader on
 * another thread sees the old or the new value.
 */
export class QueueCounters {
  #values: Float64Array;

  /** The counters of queue `index` in shared memory. */
  constructor(memory: SharedArrayBuffer, index: number) {
    this.#values = new Float64Array(memory, index * FIELDS * 8, FIELDS);
  }

  /** Counts a chain that was taken. */
  taken(readableBytes: number): void {
    this.#values[1] += readableBytes;
    this.#values[5]++;
  }

  /** Counts a chain that went back unused. */
  untaken(readableBytes: number): void {
    this.#values[1] -= readableBytes;
    this.#values[5]--;
  }

  /** Counts a chain that was completed. */
  completed(written: number): void {
    this.#values[0]++;
    this.#values[2] += written;
    this.#values[5]--;
  }

  /** Counts a chain that was taken and will not be completed. */
  abandoned(): void {
    this.#values[5]--;
  }

  /** Counts a notification from the driver. */
  kicked(): void {
    this.#values[3]++;
  }

  /** Counts a notification to the driver. */
  notified(): void {
    this.#values[4]++;
  }

  /** Counts a fault. */
  failed(): void {
    this.#values[6]++;
  }

  get requests(): number {
    return this.#values[0];
  }
  get kicks(): number {
    return this.#values[3];
  }
  get inFlight(): number {
    return this.#values[5];
  }

  /** The counts as plain values. */
  toJSON(): QueueCounts {
    const [requests, bytesRead, bytesWritten, kicks, notifications, inFlight, errors] =
      this.#values;
    return { requests, bytesRead, bytesWritten, kicks, notifications, inFlight, errors };
  }
}
