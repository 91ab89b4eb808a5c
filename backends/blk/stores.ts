/**
 * The stores that there are, by the options that choose them.
 *
 * @module
 */

import { OptionError } from "../../mod.ts";
import { FileStore, openFileStore } from "./file_store.ts";
import { MappedStore } from "./mapped_store.ts";
import { openMemoryStore } from "./memory_store.ts";
import { attachNullStore, openNullStore } from "./null_store.ts";
import type { BlkOptions } from "./options.ts";
import type {
  AnyOpenStore,
  FileHandle,
  NullHandle,
  Store,
  StoreHandle,
  StoreHost,
  ThreadHost,
} from "./store.ts";
import { isModule, uriStore } from "./store_name.ts";
import { UringStore } from "./uring_store.ts";

/** What a store is opened with, beside the options. */
export interface Opening {
  /** Prints a line for the person who runs the device. */
  log(message: string): void;
  /** The size of the store has changed by itself. Not before it is open. */
  resized(): void;
}

/**
 * Opens the store that the options ask for, which `check_options.ts` has checked.
 *
 * @throws {OptionError} When they do not fit the disk.
 * @throws {Error} When it cannot be had.
 */
export async function openStore(
  options: BlkOptions,
  opening: Opening,
): Promise<AnyOpenStore> {
  const { blkFile, size, null: isNull, readOnly } = options;
  if (options.overlay !== undefined) {
    const { openOverlayStore } = await import("./overlay/open_overlay.ts");
    return await openOverlayStore(options, opening, openStore);
  }
  if (blkFile !== undefined) {
    const format = options.format === "overlay" ? undefined : options.format;
    const ours = uriStore(blkFile);
    if (ours !== undefined || isModule(blkFile)) {
      const { openModuleStore } = await import("./module/module_store.ts");
      const how = { readOnly, format, ...opening };
      return await openModuleStore(blkFile, options.storeOptions, how, ours);
    }
    if (options.storeOptions !== undefined) {
      throw new OptionError(
        "--store-options are for a store in TypeScript or a disk elsewhere; leave them out",
      );
    }
    if (/^[a-z][\w+.-]*:\/\//i.test(blkFile)) {
      throw new OptionError(
        "Expected nbd, nbds, nbd+unix, nbds+unix, http, https or rbd before the first colon, got " +
          `${blkFile}; a file is ./${blkFile}`,
      );
    }
    return openFileStore(blkFile, {
      readOnly,
      io: options.io,
      direct: options.cache === "none" || options.cache === "directsync",
      lock: options.lock === "on",
      format,
      log: opening.log,
    });
  }
  return isNull ? openNullStore(size!, { readOnly }) : openMemoryStore(size!, { readOnly });
}

/** Attaches a queue thread to a store. */
export async function attachStore(handle: StoreHandle, host: ThreadHost): Promise<Store> {
  switch (handle.kind) {
    case "module": {
      const { attachModuleStore } = await import("./module/module_store.ts");
      return await attachModuleStore(handle, host);
    }
    case "overlay": {
      const { attachOverlayStore } = await import("./overlay/overlay_store.ts");
      return await attachOverlayStore(handle, host, attachStore);
    }
    default:
      return attachLocalStore(handle, host);
  }
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
