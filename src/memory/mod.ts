/**
 * Guest memory: regions, the span they live in, and views of it.
 *
 * @module
 */

export * from "./guard/memory_fault.ts";
export * from "./guest_memory.ts";
export * from "./regions.ts";
