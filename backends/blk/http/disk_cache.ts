/**
 * The cache as a queue thread uses it: chunks that it has claimed are read straight from the file
 * to guest memory, and old ones make room for new ones.
 *
 * @module
 */

import { LATER } from "../../../mod.ts";
import { errnoName, LinuxError } from "../../../src/linux/mod.ts";
import { FileStore } from "../file_store.ts";
import type { StoreContext } from "../module/define_store.ts";
import type { FileHandle, Store, StoreRequest } from "../store.ts";
import { UringStore } from "../uring_store.ts";
import { excessOf } from "./cache_directory.ts";
import { CacheFile, CHUNK_BYTES, type Claim } from "./cache_file.ts";

/** Where the cache is; a plain value. */
export interface CacheHandle {
  /** The descriptor of the file, which stays the control half's. */
  readonly fd: number;
  /** The directory, and the file's name in it. */
  readonly directory: string;
  readonly name: string;
  /** The most bytes that all files of the directory take. */
  readonly limitBytes: number;
}

/** The directory is looked at again after this many bytes, or an eighth of its limit. */
const SCAN_BYTES = 16_777_216;

/**
 * What a thread knows of a chunk: nothing; it is held; held too, but no reader has come to it yet;
 * it is the thread's to fetch.
 */
const UNKNOWN = 0, HELD = 1, AHEAD = 2, MINE = 3;

/** The chunks of a cache file that a thread holds. */
export class DiskCache {
  readonly #context: StoreContext;
  readonly #handle: CacheHandle;
  readonly #file: CacheFile;
  readonly #inline: FileStore;
  readonly #store: Store;
  /** By chunk: what is known of it, and how many reads of it are in flight. */
  readonly #state: Uint8Array;
  readonly #reading: Uint16Array;
  /** By chunk: when it was used last, by a clock of the reader's. */
  readonly #used: Uint32Array;
  readonly #scanBytes: number;
  /** Bytes stored since the directory was looked at. */
  #unscanned = Infinity;
  #hasRoom = true;

  /**
   * @param used By chunk: when it was used last.
   * @param lost Gets requests whose data could not be read: it has to be fetched.
   */
  constructor(
    context: StoreContext,
    handle: CacheHandle,
    used: Uint32Array,
    lost: (request: StoreRequest) => void,
  ) {
    this.#context = context;
    this.#handle = handle;
    this.#file = new CacheFile(handle.fd, used.length);
    this.#used = used;
    this.#state = new Uint8Array(used.length);
    this.#reading = new Uint16Array(used.length);
    this.#scanBytes = Math.min(SCAN_BYTES, handle.limitBytes / 8);
    const { io, memory } = context;
    const host = {
      ...{ io, memory },
      done: (request: StoreRequest, result: number) => {
        this.#landed(request, result);
        if (result === 0) context.done(request, 0);
        else lost(request);
      },
      flush: () => context.flush(),
    };
    const file: FileHandle = {
      ...{ kind: "file", fd: handle.fd, isBlockDevice: false, start: 0, io: "auto" },
      ...{ directFd: -1, directOffsetAlign: 1, directMemoryAlign: 1 },
    };
    this.#inline = new FileStore(file, host);
    this.#store = io === undefined ? this.#inline : new UringStore(file, host, io, this.#inline);
  }

  /** Whether all of these chunks are held, and readers have come to them before. */
  has(first: number, last: number): boolean {
    const state = this.#state;
    for (let chunk = first; chunk <= last; chunk++) if (state[chunk] !== HELD) return false;
    return true;
  }

  /** A reader comes to a chunk: returns whether it is held. */
  come(chunk: number): boolean {
    if (this.#state[chunk] === AHEAD) this.#state[chunk] = HELD;
    return this.#state[chunk] === HELD;
  }

  /** Whether a chunk is held. */
  holds(chunk: number): boolean {
    return this.#state[chunk] === HELD || this.#state[chunk] === AHEAD;
  }

  /** Reads from chunks that are held; an errno is not the guest's: the data has to be fetched. */
  read(request: StoreRequest): number {
    const first = Math.floor(request.offset / CHUNK_BYTES);
    const last = Math.floor((request.offset + request.bytes - 1) / CHUNK_BYTES);
    for (let chunk = first; chunk <= last; chunk++) this.#reading[chunk]++;
    const result = this.#store.read(request) as number;
    if (result !== LATER) this.#landed(request, result);
    return result;
  }

  /** Reads a part of a request from one chunk that is held, at once; returns whether it could. */
  readNow(chunk: number, part: StoreRequest): boolean {
    if (this.#inline.read(part) === 0) return true;
    this.#state[chunk] = UNKNOWN;
    return false;
  }

  /** A read has ended. If it failed, its chunks have to be looked at again. */
  #landed({ offset, bytes }: StoreRequest, result: number): void {
    const first = Math.floor(offset / CHUNK_BYTES);
    const last = Math.floor((offset + bytes - 1) / CHUNK_BYTES);
    for (let chunk = first; chunk <= last; chunk++) {
      this.#reading[chunk]--;
      if (result !== 0) this.#state[chunk] = UNKNOWN;
    }
  }

  /** Claims a chunk, which is held if it is whole; undefined where the cache fails. */
  claim(chunk: number, isAhead: boolean): Claim | undefined {
    const claim = this.#attempt(() => this.#file.claim(chunk));
    if (claim === "whole") this.#state[chunk] = isAhead ? AHEAD : HELD;
    if (claim === "mine") this.#state[chunk] = MINE;
    return claim;
  }

  /** Stores a chunk that was claimed; returns whether it is held now. */
  store(chunk: number, bytes: Uint8Array<ArrayBuffer>, isAhead: boolean): boolean {
    if (!this.#makeRoom()) {
      this.drop(chunk);
      return false;
    }
    this.#state[chunk] = UNKNOWN;
    const isStored = this.#attempt(() => {
      this.#file.store(chunk, bytes);
      return true;
    }) ?? false;
    if (isStored) this.#state[chunk] = isAhead ? AHEAD : HELD;
    return isStored;
  }

  /** Leaves a chunk that was claimed to others. */
  drop(chunk: number): void {
    this.#state[chunk] = UNKNOWN;
    this.#attempt(() => this.#file.drop(chunk));
  }

  /** Makes room for a chunk; returns whether there is any. */
  #makeRoom(): boolean {
    this.#unscanned += CHUNK_BYTES;
    if (this.#unscanned <= this.#scanBytes) return this.#hasRoom;
    this.#unscanned = CHUNK_BYTES;
    const { directory, name, limitBytes } = this.#handle;
    const left = this.#attempt(() => {
      const excess = excessOf(directory, limitBytes - this.#scanBytes, name);
      return excess - (excess > 0 ? this.#remove(excess) : 0);
    });
    this.#hasRoom = left !== undefined && left <= 0;
    if (left !== undefined && left > 0) {
      this.#context.notice({
        what: "The cache is full",
        why: `other disks that are served use its ${limitBytes} bytes`,
        remedy: "what does not fit is fetched each time; give it more by cache-size",
      });
    }
    return this.#hasRoom;
  }

  /** Removes chunks, those that were not used for the longest time first; returns the bytes freed. */
  #remove(bytes: number): number {
    const chunks = [...this.#file.stored()].sort((a, b) => this.#used[a] - this.#used[b]);
    let freed = 0;
    for (const chunk of chunks) {
      if (freed >= bytes) break;
      if (this.#state[chunk] === MINE || this.#reading[chunk] > 0) continue;
      if (!this.#file.remove(chunk)) continue;
      this.#state[chunk] = UNKNOWN;
      freed += CHUNK_BYTES;
    }
    return freed;
  }

  /** Does something with the cache; where that fails, returns nothing and says why. */
  #attempt<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      const isFile = error instanceof LinuxError || error instanceof Deno.errors.NotFound;
      if (!isFile) throw error;
      this.#context.notice({
        what: `The cache fails (${error instanceof LinuxError ? errnoName(error.errno) : "gone"})`,
        why: error.message,
        remedy: `what cannot be cached in ${this.#handle.directory} is fetched each time`,
      });
    }
  }

  /** Ends; nothing is in flight. */
  close(): void {
    this.#store.close?.();
  }
}
