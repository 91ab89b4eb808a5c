/**
 * The order of a device's queues.
 *
 * @module
 */

import type { Queues } from "./device.ts";

/** A queue of a device. */
export interface QueueSlot {
  /** The index that the driver knows it by. */
  index: number;
  /** Its name in the definition. */
  name: string;
  /** Its place among the queues of its name. */
  ordinal: number;
}

/**
 * Lists the queues in the order of their indexes: in that of the definition, with the queues of a
 * family in turn.
 *
 * @param counts How many queues each kind of a family has, by the family's name; 1 by default.
 */
export function layOutQueues(
  queues: Queues,
  counts: Readonly<Record<string, number | undefined>> = {},
): QueueSlot[] {
  // A queue without a family is in a group of its own.
  const groups = Map.groupBy(Object.entries(queues), ([, { family }]) => family ?? {});
  return [...groups].flatMap(([family, kinds]) =>
    Array.from(
      { length: typeof family === "string" ? counts[family] ?? 1 : 1 },
      (_, ordinal) => kinds.map(([name]) => ({ name, ordinal })),
    ).flat()
  ).map((slot, index) => ({ index, ...slot }));
}
