/**
 * The rules that a driver must keep on a virtqueue, and the error that names
 * the one it broke.
 *
 * @module
 */

/** The rules, by name: the section that has it, and what it asks for. */
export const ringRules = {
  "queue-size": ["virtio 1.3, 2.7", "the queue size is a power of 2 up to 32768"],
  "ring-alignment": [
    "virtio 1.3, 2.7",
    "the descriptor table is aligned to 16 bytes, the available ring to 2, the used ring to 4",
  ],
  "ring-address": ["virtio 1.3, 2.7", "every part of the ring lies inside guest memory"],
  "available-index": [
    "virtio 1.3, 2.7.13.3",
    "the available index is ahead by no more buffers than the queue has",
  ],
  "descriptor-index": ["virtio 1.3, 2.7.6", "a head is an index of the descriptor table"],
  "descriptor-next": ["virtio 1.3, 2.7.5", "next is an index of the table that it stands in"],
  "head-in-flight": [
    "virtio 1.3, 2.7.13",
    "a buffer is not made available again before it was used",
  ],
  "chain-length": [
    "virtio 1.3, 2.7.5.3.1",
    "a chain has no more descriptors than the queue (a loop always has)",
  ],
  "chain-bytes": ["virtio 1.3, 2.7.5.2", "a chain has no more than 2^32 bytes"],
  "buffer-address": ["virtio 1.3, 2.7.5", "every buffer lies inside guest memory"],
  "writable-before-readable": [
    "virtio 1.3, 2.7.4.2",
    "device-writable buffers come after all device-readable ones",
  ],
  "indirect-negotiated": [
    "virtio 1.3, 2.7.5.3.1",
    "INDIRECT is set only where VIRTIO_F_INDIRECT_DESC was negotiated",
  ],
  "indirect-nested": ["virtio 1.3, 2.7.5.3.1", "an indirect table contains no INDIRECT descriptor"],
  "indirect-next": ["virtio 1.3, 2.7.5.3.1", "INDIRECT and NEXT are not set together"],
  "indirect-length": [
    "virtio 1.3, 2.7.5.3",
    "an indirect table's length is a multiple of 16 bytes and not zero",
  ],
  "indirect-address": ["virtio 1.3, 2.7.5.3", "an indirect table lies inside guest memory"],
} as const;

/** The name of a rule. */
export type RingRule = keyof typeof ringRules;

/** A rule of the virtqueue that the driver broke. */
export class RingError extends Error {
  override name = "RingError";
  /** The rule. */
  readonly rule: RingRule;
  /** The section of the standard that has it. */
  readonly section: string;

  /** @param got What came instead of what the rule asks for. */
  constructor(rule: RingRule, got: string) {
    const [section, text] = ringRules[rule];
    super(`${got}, but ${text} (${section})`);
    this.rule = rule;
    this.section = section;
  }
}
