/**
 * Guest memory: regions, the span they live in, and views of it.
 *
 * @module
 */

export * from "./guard/memory_fault.ts";
export * from "./guest_memory.ts";
export { RegionError, type RegionRequest } from "./region_check.ts";
export * from "./regions.ts";
export * from "./span_view.ts";
