/**
 * The stores that there are, by the options that choose them.
 *
 * @module
 */

import { FileStore, openFileStore } from "./file_store.ts";
import { MappedStore } from "./mapped_store.ts";
import { openMemoryStore } from "./memory_store.ts";
import { attachNullStore, openNullStore } from "./null_store.ts";
import type { BlkOptions } from "./options.ts";
import type {
  FileHandle,
  NullHandle,
  OpenStore,
  Store,
  StoreHandle,
  StoreHost,
  ThreadHost,
} from "./store.ts";
import { UringStore } from "./uring_store.ts";

/**
 * Opens the store that the options ask for.
 *
 * @throws {Error} When they ask for none or for several, or it cannot be had.
 */
export async function openStore(
  options: BlkOptions,
  log: (message: string) => void,
): Promise<OpenStore> {
  const { blkFile, size, null: isNull, readOnly } = options;
  if (blkFile !== undefined) {
    if (isNull) throw new Error("--blk-file and --null exclude each other");
    if (size !== undefined) {
      throw new Error("--blk-file and --size exclude each other: a file has its own size");
    }
    if (isModule(blkFile)) {
      const { openModuleStore } = await import("./module/module_store.ts");
      return await openModuleStore(blkFile, { options: options.storeOptions, readOnly, log });
    }
    if (options.storeOptions !== undefined) {
      throw new Error("--store-options are for a store in TypeScript; leave them out");
    }
    return openFileStore(blkFile, {
      readOnly,
      io: options.io,
      direct: options.cache === "none",
      lock: options.lock === "on",
      log,
    });
  }
  if (size === undefined) {
    throw new Error(
      isNull
        ? "--null needs a size, such as --null --size=1G"
        : "Expected what to serve: --blk-file=PATH, --size=SIZE (memory) or --null --size=SIZE",
    );
  }
  return isNull ? openNullStore(size, { readOnly }) : openMemoryStore(size, { readOnly });
}

/** Whether a name is that of a module: no disk image has such a name. */
function isModule(name: string): boolean {
  return /\.[cm]?[jt]s$/.test(name);
}

/** Attaches a queue thread to a store. */
export async function attachStore(handle: StoreHandle, host: ThreadHost): Promise<Store> {
  if (handle.kind !== "module") return attachLocalStore(handle, host);
  const { attachModuleStore } = await import("./module/module_store.ts");
  return await attachModuleStore(handle, host);
}

/** Attaches a queue thread to a file, to memory or to nothing. */
export function attachLocalStore(handle: FileHandle | NullHandle, host: StoreHost): Store {
  switch (handle.kind) {
    case "file":
      return attachFileStore(handle, host);
    case "null":
      return attachNullStore();
  }
}

/** Attaches a queue thread to a file. */
function attachFileStore(handle: FileHandle, host: StoreHost): Store {
  const store = new FileStore(handle, host);
  if (handle.map !== undefined) return new MappedStore(handle, handle.map, host, store);
  const { io } = host;
  return io === undefined || handle.io === "sync" ? store : new UringStore(handle, host, io, store);
}
