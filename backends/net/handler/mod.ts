/**
 * Networks in TypeScript, for `vhostd net --handler=FILE`.
 *
 * @module
 */

export * from "./define_network.ts";
export * from "./packets.ts";
