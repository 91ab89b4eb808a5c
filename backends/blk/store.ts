/**
 * What a block device keeps its data in. Like a device, a store has two halves:
 *
 * - {@linkcode OpenStore} is opened once, on the main thread: it says how large the store is and
 *   what it can do, and closes it;
 * - {@linkcode Store} carries requests out. Each queue thread attaches one of its own from the
 *   plain values of {@linkcode OpenStore.handle}.
 *
 * A new store is a file with these two, and a line in each function of `stores.ts`. The device does
 * not change.
 *
 * @module
 */

import type { DeviceNotice, Parts, Readiness, Watch } from "../../mod.ts";
import type { ThreadIo } from "../../src/linux/mod.ts";
import type { BlockLimits } from "./block_device.ts";
import type { Lifetime } from "./lifetime.ts";

/** A request to a store. It is the store's from the call until the result is known. */
export interface StoreRequest {
  /** Guest memory that a read fills or that a write stores: `bytes` bytes from `dataOffset` on. */
  readonly data: Parts;
  /** Where the data begins in these parts. */
  readonly dataOffset: number;
  /** Where in the store, in bytes: a multiple of 512, and with `bytes` inside the capacity. */
  readonly offset: number;
  /** How many bytes: a multiple of 512, and not 0. */
  readonly bytes: number;
}

/**
 * What became of a request: 0 when it is done, a (positive) errno when it failed. `LATER` when the
 * store will tell by {@linkcode StoreHost.done}. Or a promise of 0 or an errno; one that is
 * rejected counts as EIO.
 *
 * A store may answer each request in another way.
 */
export type StoreResult = number | Promise<number>;

/** A store as one queue thread sees it. */
export interface Store {
  /** Fills the data from the store. */
  read(request: StoreRequest): StoreResult;
  /** Stores the data. */
  write(request: StoreRequest): StoreResult;
  /** Makes everything durable whose write was answered before. The request's fields mean nothing. */
  flush(request: StoreRequest): StoreResult;
  /** Forgets a range: reads there return anything afterwards. `data` means nothing. */
  discard(request: StoreRequest): StoreResult;
  /** Makes a range read as zeroes; with `unmap` its space may be given back. `data` means nothing. */
  writeZeroes(request: StoreRequest, unmap: boolean): StoreResult;
  /** Erases a range beyond recovery: reads there return anything afterwards. `data` means nothing. */
  secureErase?(request: StoreRequest): StoreResult;
  /** How worn its storage is. */
  lifetime?(): Lifetime | Promise<Lifetime>;
  /** All requests of a batch were made: starts the collected ones. */
  submit?(): void;
  /** A stop has waited too long: fails requests that wait for a server. */
  cancel?(): void;
  /** The thread ends; nothing is in flight. */
  close?(): void;
}

/** What a store on a queue thread is given. */
export interface StoreHost {
  /** Guest memory: where the indexes of parts lead. */
  readonly memory: { readonly u8: Uint8Array<ArrayBuffer>; readonly base: number };
  /** The thread's io_uring, where it has one. */
  readonly io: ThreadIo | undefined;
  /** A request to which the store answered `LATER` is done (0) or failed (an errno). */
  done(request: StoreRequest, result: number): void;
  /** Publishes completions to the driver; once after several calls of `done`. */
  flush(): void;
}

/** What any store on a queue thread is given. */
export interface ThreadHost extends StoreHost {
  /** As {@linkcode StoreHost.memory}; `scratch` makes memory of the store's own in it. */
  readonly memory: StoreHost["memory"] & { scratch(bytes: number): number };
  /** Calls `callback` whenever a descriptor is ready, until the watch is disposed of. */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /** Runs the thread's event loop while a promise is pending. */
  keep<T>(promise: Promise<T>): Promise<T>;
  /** Prints a fault for the person who runs the device. */
  notice(notice: DeviceNotice): void;
}

/** What a store can do. */
export interface StoreAbilities extends BlockLimits {
  /** Whether writes fail. */
  readonly readOnly: boolean;
  /** Whether flushed data outlives this process. */
  readonly durable: boolean;
  /** Whether a discard gives space back. */
  readonly discard: boolean;
  /** Whether it has write-zeroes. */
  readonly writeZeroes: boolean;
  /** Whether write-zeroes with `unmap` may give space back. */
  readonly unmap: boolean;
  /** Whether it has secure-erase. */
  readonly secureErase?: boolean;
  /** Whether it has lifetime. */
  readonly lifetime?: boolean;
  /** Whether all queues have to run on one thread. */
  readonly isOneThread?: boolean;
}

/** The limits of a store that is no block device. */
export const FILE_LIMITS: BlockLimits = {
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  minIoBytes: 4096,
  optimalIoBytes: 0,
};

/** The abilities of a store whose data ends with this process. */
export function volatileAbilities(readOnly: boolean): StoreAbilities {
  const canWrite = !readOnly;
  return {
    ...FILE_LIMITS,
    ...{ readOnly, durable: false, discard: canWrite, writeZeroes: canWrite, unmap: canWrite },
  };
}

/** A store that was opened. */
export interface OpenStore<H extends StoreHandle = StoreHandle>
  extends StoreControl<H>, Disposable {}

/** A module's store that was opened. */
export interface OpenModuleStore extends StoreControl<ModuleHandle>, AsyncDisposable {}

/** An overlay that was opened, over any store. */
export interface OpenOverlayStore extends StoreControl<OverlayHandle>, AsyncDisposable {}

/** Any store that was opened. */
export type AnyOpenStore = OpenStore | OpenModuleStore | OpenOverlayStore;

/** The control half of a store. */
export interface StoreControl<H extends StoreHandle = StoreHandle> {
  /** Its kind, in a word. */
  readonly kind: string;
  /** What it can do. */
  readonly abilities: StoreAbilities;
  /** From what queue threads attach to it: a plain value whose `kind` `stores.ts` knows. */
  readonly handle: H;
  /** What it begins with, where that can be had when it is opened. */
  readonly firstBytes?: Uint8Array;
  /** How large it is now, in bytes. */
  bytes(): number;
  /** Changes when its content does; undefined where nothing tells. */
  identity?(): string;
  /**
   * Changes its size while no request writes behind the new one; absent where that is done
   * elsewhere (the size of a block device is read again).
   */
  resize?(bytes: number): void | Promise<void>;
  /** What the record says of it; JSON. */
  describe(): Record<string, unknown>;
}

/** From what a queue thread attaches to a store. */
export type StoreHandle = FileHandle | NullHandle | ModuleHandle | OverlayHandle;

/** A module whose default export is a store. */
export interface ModuleHandle {
  readonly kind: "module";
  /** The URL of the module. */
  readonly url: string;
  /** Whether it is a part of vhostd: a person's own is not relied on to keep the contract. */
  readonly isOurs: boolean;
  /** What requests are multiples of. */
  readonly blockBytes: number;
  /** The values of its options. */
  readonly options: Record<string, unknown>;
  /** What its `open` returned as `shared`. */
  readonly shared: unknown;
}

/** A file that holds what was written, over a store that is only read. */
export interface OverlayHandle {
  readonly kind: "overlay";
  /** The file; its disk begins behind its map. */
  readonly delta: FileHandle;
  readonly base: StoreHandle;
  /** How long the base is: behind it are zeroes. */
  readonly baseBytes: number;
  /** What reads of it are multiples of. */
  readonly baseBlockBytes: number;
  /** The state of `OverlayMap`. */
  readonly maps: SharedArrayBuffer;
  /** Where in the file its two copies are: see `format.ts`. */
  readonly liveOffset: number;
  readonly durableOffset: number;
}

/** A file, a block device or a memory file. Its descriptor stays the control half's. */
export interface FileHandle {
  readonly kind: "file";
  readonly fd: number;
  readonly isBlockDevice: boolean;
  /** Where in the file the disk begins, in bytes: a multiple of what O_DIRECT may want. */
  readonly start: number;
  /** How requests are carried out. */
  readonly io: IoMode;
  /** The same file, open past the page cache; -1 where everything goes through it. */
  readonly directFd: number;
  /** What offsets and lengths on `directFd` are multiples of, in bytes. */
  readonly directOffsetAlign: number;
  /** What addresses on `directFd` are multiples of, in bytes. */
  readonly directMemoryAlign: number;
  /** The mapping of a file that is in memory anyway. */
  readonly map?: MapHandle;
  /** The directory in which the kernel tells how worn it is. */
  readonly lifetimePath?: string;
}

/** A file in memory that is mapped. The mapping stays the control half's. */
export interface MapHandle {
  /** The address of the file's first byte. */
  readonly address: number;
  /** The state of `MappedPages`. */
  readonly pages: SharedArrayBuffer;
  /** The descriptor with a lease; -1 for a private file. */
  readonly leasedFd: number;
}

/**
 * How a file's requests are carried out: `sync`, by a system call each, while the queue waits;
 * `uring`, all by io_uring; `auto`, at once where the page cache can answer, else by io_uring, and
 * by copying where the file is in memory.
 */
export type IoMode = "auto" | "uring" | "sync";

/** Nothing. */
export interface NullHandle {
  readonly kind: "null";
}
