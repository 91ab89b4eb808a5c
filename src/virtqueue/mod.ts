/**
 * Virtqueues: rings and descriptor chains over guest memory.
 *
 * @module
 */

export * from "./chain.ts";
export * from "./inflight.ts";
export * from "./packed/ring.ts";
export * from "./parts.ts";
export * from "./ring.ts";
export * from "./rules.ts";
export * from "./split/ring.ts";
export * from "./virtqueue.ts";
