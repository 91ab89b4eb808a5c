/** A part of a buffer: memory that the device reads or writes. */
export interface BufferPart {
  /** Its guest physical address. */
  gpa: number;
  /** Its size in bytes. */
  bytes: number;
}

/** How a chain is put into a ring. */
export interface AddOptions {
  /**
   * Use an indirect table: one descriptor of the ring, whatever the number of
   * parts. Needs VIRTIO_F_INDIRECT_DESC.
   *
   * @default {false}
   */
  indirect?: boolean;
}

/**
 * A virtqueue seen from the driver, split or packed. It is for one thread.
 *
 * The core allocates nothing: {@linkcode DriverRing.begin},
 * {@linkcode DriverRing.descriptor} for each part, {@linkcode DriverRing.end};
 * after some chains {@linkcode DriverRing.publish}, and
 * {@linkcode DriverRing.kick} when that says so. Completions come from
 * {@linkcode DriverRing.poll}.
 *
 * A guest physical address from 2^31 on is no small integer to V8: where a call
 * of `descriptor` is not inlined, it costs 16 bytes of garbage. A load
 * generator places its memory below that.
 */
export interface DriverRing {
  /** The number of descriptors. */
  readonly size: number;
  /** How many descriptors are free. */
  readonly free: number;
  /** How many chains are in the ring and not polled back. */
  readonly inFlight: number;
  /** How many bytes the device wrote to the chain that was polled last. */
  readonly written: number;
  /**
   * Where a device without a memory of its own goes on after a reconnect, as
   * SET_VRING_BASE has it: behind what was used. Poll before.
   */
  readonly resumeBase: number;

  /**
   * Begins a chain of `count` parts; one that was begun and not ended is
   * forgotten.
   *
   * @returns Whether there is room; if not, nothing was begun
   */
  begin(count: number, indirect?: boolean): boolean;
  /** Adds a part to the chain that was begun: readable ones first (virtio 1.3, 2.6.4.2). */
  descriptor(gpa: number, bytes: number, writable: boolean): void;
  /**
   * Ends the chain. The device sees it after {@linkcode DriverRing.publish}.
   *
   * @returns Its number, which {@linkcode DriverRing.poll} gives back; below `size`
   */
  end(): number;
  /**
   * Adds a whole chain: `begin`, `descriptor` and `end` in one.
   *
   * @returns Its number, or -1 where there is no room
   */
  add(
    readable: readonly BufferPart[],
    writable: readonly BufferPart[],
    options?: AddOptions,
  ): number;
  /**
   * Makes every chain that was ended visible to the device.
   *
   * @returns Whether the device wants a notification of it
   */
  publish(): boolean;
  /** Notifies the device, wanted or not. */
  kick(): void;
  /**
   * Takes the next chain that the device is done with.
   *
   * @returns Its number, free for a new chain from now on; -1 where there is none
   * @throws {FrontendError} With reason "device", if the device gave back what
   * was not in flight
   */
  poll(): number;
  /**
   * Asks the device for a notification of the next completion.
   *
   * @returns Whether there are completions already, for which none will come
   */
  arm(): boolean;
  /** Tells the device that notifications are not needed. A hint: some may come. */
  disarm(): void;

  /**
   * Makes every chain in flight available again, in the order in which they
   * were added, so that a device that starts at {@linkcode DriverRing.resumeBase}
   * sees each of them once. Only while no device uses the ring; poll before.
   */
  requeue(): void;
  /**
   * Makes the ring new, with nothing in flight. Only while no device uses it.
   *
   * @param base Where it begins, as SET_VRING_BASE has it, instead of at its beginning
   */
  reset(base?: number): void;
}
