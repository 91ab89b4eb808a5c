/**
 * The rules that a driver must keep on a virtqueue, and the error that names the one it broke.
 *
 * @module
 */

/** A rule: its requirement, and its sections of virtio 1.3. */
interface Rule {
  readonly text: string;
  /** The section on split virtqueues. */
  readonly split: string;
  /** The section on packed virtqueues. */
  readonly packed: string;
}

/** The rules, by name. */
export const ringRules = {
  "queue-size": {
    text: "the queue size is a power of 2 (with packed rings any number) up to 32768",
    split: "2.7",
    packed: "2.8.10.1",
  },
  "ring-alignment": {
    text:
      "the parts of a split ring are aligned to 16, 2 and 4 bytes, those of a packed one to 16, 4 and 4",
    split: "2.7",
    packed: "2.8.10.1",
  },
  "ring-address": {
    text: "every part of the ring lies inside guest memory",
    split: "2.7",
    packed: "2.8",
  },
  "available-index": {
    text: "no more is made available than the queue has room for",
    split: "2.7.13.3",
    packed: "2.8.21",
  },
  "descriptor-index": {
    text: "a head (in a packed ring, a buffer ID) is below the queue size",
    split: "2.7.6",
    packed: "2.8.13",
  },
  "descriptor-next": {
    text: "next is an index of the table that it stands in",
    split: "2.7.5",
    packed: "2.8.6",
  },
  "list-available": {
    text: "all descriptors of a list are available when its first one is",
    split: "2.7.13.1",
    packed: "2.8.6",
  },
  "head-in-flight": {
    text: "a buffer is not made available again before it was used",
    split: "2.7.13",
    packed: "2.8.16",
  },
  "chain-length": {
    text:
      "a chain has no more descriptors than the queue, or 1024 in an indirect table (a loop always has)",
    split: "2.7.5.3.1",
    packed: "2.8.17",
  },
  "chain-bytes": {
    text: "a chain has no more than 2^32 bytes",
    split: "2.7.5.2",
    packed: "2.8.17",
  },
  "buffer-address": {
    text: "every buffer lies inside guest memory",
    split: "2.7.5",
    packed: "2.8.4",
  },
  "writable-before-readable": {
    text: "device-writable buffers come after all device-readable ones",
    split: "2.7.4.2",
    packed: "2.8.17",
  },
  "indirect-negotiated": {
    text: "INDIRECT is set only where VIRTIO_F_INDIRECT_DESC was negotiated",
    split: "2.7.5.3.1",
    packed: "2.8.19",
  },
  "indirect-nested": {
    text: "an indirect table contains no INDIRECT descriptor",
    split: "2.7.5.3.1",
    packed: "2.8.19",
  },
  "indirect-next": {
    text: "INDIRECT and NEXT are not used together",
    split: "2.7.5.3.1",
    packed: "2.8.19",
  },
  "indirect-length": {
    text: "an indirect table's length is a multiple of 16 bytes and not zero",
    split: "2.7.5.3",
    packed: "2.8.7",
  },
  "indirect-address": {
    text: "an indirect table lies inside guest memory",
    split: "2.7.5.3",
    packed: "2.8.7",
  },
} as const satisfies Record<string, Rule>;

/** The name of a rule. */
export type RingRule = keyof typeof ringRules;

/** The layout of a ring. */
export type RingLayout = "split" | "packed";

/** A rule of the virtqueue that the driver broke. */
export class RingError extends Error {
  override name = "RingError";
  /** The rule. */
  readonly rule: RingRule;
  /** The section of the standard that has it; not in the message. */
  readonly section: string;

  /**
   * @param rule The rule that was broken.
   * @param got What came instead of what the rule asks for.
   * @param layout The kind of ring.
   */
  constructor(rule: RingRule, got: string, layout: RingLayout) {
    super(`${got}, but ${ringRules[rule].text}`);
    this.rule = rule;
    this.section = `virtio 1.3, ${ringRules[rule][layout]}`;
  }
}
