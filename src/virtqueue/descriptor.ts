/**
 * Descriptors, as both kinds of ring have them: virtio 1.3, 2.7.5 and 2.8.13.
 *
 * @module
 */

/** The size of a descriptor. */
export const DESCRIPTOR_BYTES = 16;

/** The chain goes on. */
export const VIRTQ_DESC_F_NEXT = 1;
/** The buffer is device-writable. */
export const VIRTQ_DESC_F_WRITE = 2;
/** The buffer is a table of descriptors. */
export const VIRTQ_DESC_F_INDIRECT = 4;

/** Copies a descriptor, as four words, from anywhere in guest memory: tables need no alignment. */
export function copyDescriptor(u8: Uint8Array, at: number, into: Uint32Array): void {
  for (let word = 0; word < 4; word++, at += 4) {
    into[word] = u8[at] | u8[at + 1] << 8 | u8[at + 2] << 16 | u8[at + 3] << 24;
  }
}
