/**
 * A store of nothing, to measure everything but the storage.
 *
 * @module
 */

import { type OpenStore, type Store, volatileAbilities } from "./store.ts";

const nullStore: Store = {
  read: () => 0, // guest memory stays as it is
  write: () => 0,
  flush: () => 0,
  discard: () => 0,
  writeZeroes: () => 0,
};

/** Opens a store of nothing that looks as if it had `bytes` bytes. */
export function openNullStore(bytes: number, { readOnly }: { readOnly: boolean }): OpenStore {
  return {
    kind: "null",
    abilities: volatileAbilities(readOnly),
    handle: { kind: "null" },
    bytes: () => bytes,
    resize: (wanted) => void (bytes = wanted),
    describe: () => ({}),
    [Symbol.dispose]() {},
  };
}

/** Attaches a queue thread: all of them have the same nothing. */
export function attachNullStore(): Store {
  return nullStore;
}
