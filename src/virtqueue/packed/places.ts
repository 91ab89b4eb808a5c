/**
 * What the driver's and the device's side of a packed ring have in common: places, flags and event
 * suppression: virtio 1.3, 2.8.
 *
 * A place in a ring of `size` descriptors is counted from 0 to `2 * size`: from `size` on it is the
 * descriptor `place - size` in a round with wrap counter 0. So places are compared by subtraction.
 *
 * @module
 */

/** Made available in rounds with wrap counter 1: virtio 1.3, 2.8.1. */
const VIRTQ_DESC_F_AVAIL = 1 << 7;
/** Used in rounds with wrap counter 1, made available in the others. */
export const VIRTQ_DESC_F_USED: number = 1 << 15;

/** The flags by which a descriptor shows whose it is. */
export const OWNER_FLAGS: number = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;

/** A descriptor's buffer ID, its flags, both together: in units of u16, u16, u32. */
export const ID = 6, FLAGS = 7, ID_AND_FLAGS = 3;

// Event suppression: virtio 1.3, 2.8.10 and 2.8.14. Places in units of u16.
export const OFF_WRAP = 0, EVENT_FLAGS = 1;
export const RING_EVENT_FLAGS_ENABLE = 0;
export const RING_EVENT_FLAGS_DISABLE = 1;
export const RING_EVENT_FLAGS_DESC = 2;

/** A place from a descriptor's index with the wrap counter in bit 15. */
export function placeOf(offWrap: number, size: number): number {
  return (offWrap & 0x7fff) % size + (offWrap & 0x8000 ? 0 : size);
}

/** A descriptor's index with the wrap counter in bit 15, from a place. */
export function offWrapOf(place: number, size: number): number {
  return place < size ? place | 0x8000 : place - size;
}

/** The place that is `by` descriptors further on, at most `2 * size`. */
export function ahead(place: number, by: number, size: number): number {
  const next = place + by;
  return next >= 2 * size ? next - 2 * size : next;
}

/** How many descriptors it is from one place to another. */
export function distance(from: number, to: number, size: number): number {
  return to >= from ? to - from : to - from + 2 * size;
}

/** The owner flags of an available descriptor at a place. */
export function availableFlags(place: number, size: number): number {
  return place < size ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;
}

/** The owner flags of a used descriptor at a place. */
export function usedFlags(place: number, size: number): number {
  return place < size ? OWNER_FLAGS : 0;
}

/** Whether advancing from `previous` to `next` passed the place `event`. */
export function passes(event: number, next: number, previous: number, size: number): boolean {
  return distance(previous, event, size) < distance(previous, next, size);
}
