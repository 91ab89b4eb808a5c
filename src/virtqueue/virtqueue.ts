/**
 * What the split and the packed ring have in common.
 *
 * @module
 */

import type { Chain } from "./chain.ts";
import { MAX_INDIRECT_DESCRIPTORS } from "./descriptor.ts";

/** The most descriptors a queue may have: virtio 1.3, 2.7 and 2.8.10.1. */
export const MAX_QUEUE_SIZE = 32768;

/**
 * How many parts the chains of a queue may have that are in flight; more are
 * taken when some are back. Indirect tables can share their memory, so a guest
 * needs next to none to name them.
 */
export const MAX_PARTS_IN_FLIGHT = 262_144;

/** The most descriptors of a chain, and the most parts of guest memory that they lie in. */
export function maxChainParts(size: number): number {
  return Math.max(size, MAX_INDIRECT_DESCRIPTORS);
}

/** The bytes that each part of a ring takes. */
export interface RingBytes {
  /** The descriptor table (in a packed ring, the descriptor ring). */
  descriptor: number;
  /** The available ring (driver event suppression). */
  available: number;
  /** The used ring (device event suppression). */
  used: number;
}

/** Where a ring is and how it was negotiated. */
export interface RingOptions {
  /** The number of descriptors. */
  size: number;
  /** The index in the span of the descriptor table (or descriptor ring). */
  descriptorIndex: number;
  /** The index in the span of the available ring (or driver event suppression). */
  availableIndex: number;
  /** The index in the span of the used ring (or device event suppression). */
  usedIndex: number;
  /**
   * Where to go on: the value of SET_VRING_BASE. Of a packed ring, the place of
   * the next available descriptor in the lower half and that of the next used
   * one in the upper half, each with its wrap counter in bit 15. Null if the
   * front-end did not say it.
   */
  base: number | null;
  /** VIRTIO_F_RING_PACKED was negotiated. */
  packed: boolean;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIndex: boolean;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  indirect: boolean;
  /** VIRTIO_F_IN_ORDER was negotiated: buffers are used in the order in which they were taken. */
  inOrder: boolean;
}

/** Where a ring begins that nobody has used: the value of SET_VRING_BASE. */
export function initialBase(packed: boolean): number {
  // Both wrap counters of a packed ring begin as 1: virtio 1.3, 2.8.1.
  return packed ? 0x8000_8000 : 0;
}

/**
 * A ring seen from the device. Every method is for one thread; `take` and the
 * first look at the ring throw {@linkcode RingError} when the driver broke a
 * rule, and the ring is not to be used any more then.
 */
export interface Virtqueue {
  /** The number of descriptors. */
  readonly size: number;
  /** How many chains are taken and not yet put back. */
  readonly inFlight: number;
  /** Those chains, in a new array. */
  readonly held: Chain[];
  /** Where to go on after a stop: the value of GET_VRING_BASE. */
  readonly base: number;
  /** The ring had another life before: there may be used buffers of which the driver was not notified. */
  readonly isResumed: boolean;
  /**
   * How many chains that were in flight then are taken again, before new ones.
   * Those of them that a stop leaves untaken are still in the record.
   */
  readonly resubmitted: number;
  /** Whether there is something to take, as far as can be seen without asking for a notification. */
  readonly isAvailable: boolean;
  /** There was a chain that could not be taken, as those in flight have too many parts. */
  readonly isHeldUp: boolean;
  /** The next available chain, or null when there is none. */
  take(): Chain | null;
  /**
   * Hands a chain back, with the number of bytes that were written to it. With
   * VIRTIO_F_IN_ORDER the driver gets it when all that were taken before are back.
   */
  put(chain: Chain, written: number): void;
  /** Gives up a chain that the device cannot answer: it never goes back to the driver. */
  abandon(chain: Chain): void;
  /**
   * Gives back, unused, the chain that was taken last: the driver never learns
   * of it, and the next `take` returns it. Until then `arm` reports it.
   *
   * @throws {Error} When another chain was taken after it and is not given back, or when it is not in flight.
   */
  untake(chain: Chain): void;
  /**
   * Gives back, unused, all chains that are in flight, before the ring is
   * released. Chains that were taken before one that is put back already are
   * used with no bytes, as the driver would miss them otherwise.
   */
  giveBack(): void;
  /** Ends its use: whoever still has a chain finds it empty. */
  release(): void;
  /**
   * Makes everything that was put back visible to the driver.
   *
   * @returns Whether the driver wants a notification of it.
   */
  publish(): boolean;
  /**
   * Asks the driver for a notification of the next available buffer.
   *
   * @returns Whether there are new ones already, for which none will come.
   */
  arm(): boolean;
  /** Tells the driver that notifications are not needed. */
  disarm(): void;
}
