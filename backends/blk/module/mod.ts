/**
 * Disks in TypeScript: what a module for `vhostd blk ./my_disk.ts` is made of.
 *
 * @module
 */

export {
  defineStore,
  type StoreAnswer,
  type StoreContext,
  type StoreDefinition,
  type StoreFacts,
  type StoreOpening,
} from "./define_store.ts";
export { LATER, type Parts } from "../../../mod.ts";
export type { Lifetime } from "../lifetime.ts";
export type { StoreRequest } from "../store.ts";
