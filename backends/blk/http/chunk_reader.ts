/**
 * Reads of a disk, by chunks of a remote file: each is fetched once for all requests that need it.
 *
 * @module
 */

import { LATER } from "../../../mod.ts";
import { Errno } from "../../../src/linux/mod.ts";
import type { StoreContext } from "../module/define_store.ts";
import type { StoreRequest } from "../store.ts";
import { type FileVersion, HttpFault } from "./answer.ts";
import { CHUNK_BYTES, chunksOf, type Claim } from "./cache_file.ts";
import { type CacheHandle, DiskCache } from "./disk_cache.ts";
import type { Progress } from "./progress.ts";
import type { RemoteFile } from "./remote_file.ts";

/** The most chunks that are fetched ahead of a sequential reader. */
const MAX_AHEAD = 8;

/** The most chunks that wait to be fetched ahead; then the oldest are left out. */
const MAX_QUEUED_AHEAD = 16;

/** A chunk was used lately if fewer than this many others were begun since. */
const RECENT_CHUNKS = 32;

/** The pause until a chunk is looked at again that another process fetches, in milliseconds. */
const BUSY_MS = 20;

/** A request that waits for a chunk. */
interface Waiting {
  readonly request: StoreRequest;
  /** How many of its bytes are in guest memory. */
  done: number;
}

/** A chunk that is fetched, or in memory. */
class Chunk {
  /** Made when the request begins. */
  bytes: Uint8Array<ArrayBuffer> = NO_BYTES;
  /** How many bytes have come. */
  received = 0;
  readonly waiting: Waiting[] = [];

  /** @param claim What the cache had of it, if it was asked. */
  constructor(readonly index: number, public isAhead: boolean, public claim?: Claim) {}
}

const NO_BYTES = new Uint8Array(0);

/** What the reads of a queue thread are carried out with. */
export interface ChunkReaderOptions {
  /** The file. */
  readonly file: RemoteFile;
  /** The version of it that is served. */
  readonly version: FileVersion;
  /** The most requests to the server at a time. */
  readonly connections: number;
  /** How long to wait for another process that fetches a chunk, in milliseconds. */
  readonly busyMs: number;
  /** The most chunks that stay in memory: those that are not cached on disk. */
  readonly memoryChunks: number;
  /** The cache on disk. */
  readonly cache?: CacheHandle;
  /** Counts. */
  readonly progress: Progress;
}

/** Carries out the reads of a queue thread. */
export class ChunkReader {
  readonly #context: StoreContext;
  readonly #options: ChunkReaderOptions;
  /** Chunks that are fetched or are to be, by number. */
  readonly #fetching = new Map<number, Chunk>();
  /** Whole chunks; the one that was used last is the last one. */
  readonly #memory = new Map<number, Chunk>();
  /** Chunks that a request waits for, and those that are fetched ahead. */
  readonly #queue: Chunk[] = [];
  readonly #aheadQueue: Chunk[] = [];
  #running = 0;
  #isClosed = false;
  readonly #cache: DiskCache | undefined;
  /** Counts the chunks that a reader came to. */
  #tick = RECENT_CHUNKS;
  /** By chunk: the tick at which a reader came to it last. */
  readonly #used: Uint32Array;

  /** Begins with no chunk. */
  constructor(context: StoreContext, options: ChunkReaderOptions) {
    this.#context = context;
    this.#options = options;
    const used = this.#used = new Uint32Array(chunksOf(options.version));
    this.#cache = options.cache && new DiskCache(context, options.cache, used, (request) => {
      if (this.#advance({ request, done: 0 })) context.done(request, 0);
    });
  }

  /** Carries out a read. */
  read(request: StoreRequest): number {
    const cache = this.#cache;
    if (cache !== undefined) {
      const first = Math.floor(request.offset / CHUNK_BYTES);
      const last = Math.floor((request.offset + request.bytes - 1) / CHUNK_BYTES);
      if (cache.has(first, last)) {
        for (let chunk = first; chunk <= last; chunk++) this.#used[chunk] = this.#tick;
        const result = cache.read(request);
        if (result === 0 || result === LATER) return result;
      }
    }
    return this.#advance({ request, done: 0 }) ? 0 : LATER;
  }

  /** Fails all requests that wait for the server. */
  cancel(): void {
    for (const { waiting } of this.#fetching.values()) this.#end(waiting, Errno.ECANCELED);
    this.#context.flush();
  }

  /** Ends; nothing is in flight. */
  close(): void {
    this.#isClosed = true;
    this.#cache?.close();
  }

  /** Copies what there is of a request; returns whether that was all. If not, it waits for more. */
  #advance(waiting: Waiting): boolean {
    const { offset, bytes } = waiting.request;
    while (waiting.done < bytes) {
      const at = offset + waiting.done;
      const index = Math.floor(at / CHUNK_BYTES), begin = at % CHUNK_BYTES;
      if (!this.#copy(waiting, index, begin, Math.min(CHUNK_BYTES, begin + bytes - waiting.done))) {
        return false;
      }
    }
    return true;
  }

  /** Copies bytes of a chunk; returns false if the request has to wait for them. */
  #copy(waiting: Waiting, index: number, begin: number, end: number): boolean {
    const { data, dataOffset, offset } = waiting.request;
    const bytes = end - begin;
    const to = dataOffset + waiting.done;
    const isNew = this.#tick - this.#used[index] >= RECENT_CHUNKS;
    if (isNew) this.#used[index] = ++this.#tick;
    let isThere = false;
    const cache = this.#cache;
    if (cache !== undefined && (cache.come(index) || this.#isCached(cache, index))) {
      const part = { data, dataOffset: to, offset: offset + waiting.done, bytes };
      isThere = cache.readNow(index, part);
    }
    if (!isThere) {
      const chunk = this.#remembered(index) ?? this.#wanted(index);
      isThere = chunk.received >= end;
      if (isThere) data.write(to, chunk.bytes.subarray(begin, end));
      else chunk.waiting.push(waiting);
    }
    if (isThere) waiting.done += bytes;
    if (isNew) this.#fetchAhead(index);
    return isThere;
  }

  /** Claims a chunk that is not at hand, so that one in the cache waits for no request. */
  #isCached(cache: DiskCache, index: number): boolean {
    if (this.#memory.has(index)) return false;
    const at = this.#aheadQueue.findIndex((chunk) => chunk.index === index);
    if (at >= 0) this.#aheadQueue.splice(at, 1);
    else if (this.#fetching.has(index)) return false;
    const claim = cache.claim(index, false);
    if (claim !== "whole") this.#want(index, false, claim);
    else if (at >= 0) this.#fetching.delete(index);
    return claim === "whole";
  }

  /** A chunk in memory. */
  #remembered(index: number): Chunk | undefined {
    const chunk = this.#memory.get(index);
    if (chunk !== undefined) {
      this.#memory.delete(index);
      this.#memory.set(index, chunk);
    }
    return chunk;
  }

  /** A chunk that is fetched, which a reader waits for from now on. */
  #wanted(index: number): Chunk {
    const chunk = this.#fetching.get(index) ?? this.#want(index, false);
    if (chunk.isAhead) {
      chunk.isAhead = false;
      const at = this.#aheadQueue.indexOf(chunk);
      if (at >= 0) this.#queue.push(...this.#aheadQueue.splice(at, 1));
    }
    return chunk;
  }

  /** Fetches as many chunks ahead as were read in sequence before, up to a limit. */
  #fetchAhead(index: number): void {
    let run = 0;
    while (run < MAX_AHEAD && this.#tick - this.#used[index - run - 1] < RECENT_CHUNKS) run++;
    for (let next = index + 1; next <= index + run && next < this.#used.length; next++) {
      const isThere = this.#cache?.holds(next) || this.#memory.has(next) ||
        this.#fetching.has(next);
      if (!isThere) this.#want(next, true);
    }
    // Those of a reader that went elsewhere
    const excess = Math.max(0, this.#aheadQueue.length - MAX_QUEUED_AHEAD);
    for (const { index } of this.#aheadQueue.splice(0, excess)) this.#fetching.delete(index);
  }

  #want(index: number, isAhead: boolean, claim?: Claim): Chunk {
    const chunk = new Chunk(index, isAhead, claim);
    this.#fetching.set(index, chunk);
    (isAhead ? this.#aheadQueue : this.#queue).push(chunk);
    this.#begin();
    return chunk;
  }

  /** Begins as many requests to the server as there may be. */
  #begin(): void {
    while (this.#running < this.#options.connections) {
      const chunk = this.#queue.shift() ?? this.#aheadQueue.shift();
      if (chunk === undefined) return;
      this.#running++;
      void this.#context.keep(this.#obtain(chunk));
    }
  }

  /** Gets a chunk from the cache or the server, and completes what waits for it. */
  async #obtain(chunk: Chunk): Promise<void> {
    const { index } = chunk;
    try {
      await this.#claim(chunk);
      if (chunk.claim !== "whole") {
        await this.#fetch(chunk);
        this.#serve(chunk);
        const isCached = chunk.claim === "mine" &&
          this.#cache!.store(index, chunk.bytes, chunk.isAhead);
        if (!isCached) this.#remember(chunk);
      }
      this.#fetching.delete(index);
      this.#serve(chunk);
    } catch (error) {
      if (chunk.claim === "mine") this.#cache!.drop(index);
      this.#fetching.delete(index);
      this.#fail(chunk, error);
    } finally {
      this.#running--;
      this.#begin();
    }
  }

  /** Claims a chunk in the cache. While another process fetches it, waits for that. */
  async #claim(chunk: Chunk): Promise<void> {
    const cache = this.#cache;
    if (cache === undefined) return;
    const end = performance.now() + this.#options.busyMs;
    chunk.claim ??= cache.claim(chunk.index, chunk.isAhead);
    while (chunk.claim === "busy" && performance.now() < end) {
      await this.#options.file.pause(BUSY_MS);
      chunk.claim = cache.claim(chunk.index, chunk.isAhead);
    }
  }

  /** Fetches a chunk from the server. */
  async #fetch(chunk: Chunk): Promise<void> {
    const { file, version, progress } = this.#options;
    const offset = chunk.index * CHUNK_BYTES;
    const bytes = Math.min(CHUNK_BYTES, version.bytes - offset);
    chunk.bytes = new Uint8Array(CHUNK_BYTES);
    progress.requests++;
    await file.read(version, offset, chunk.bytes.subarray(0, bytes), (received) => {
      progress.fetched += received - chunk.received;
      chunk.received = received;
      this.#serve(chunk);
    }, (fault) => {
      progress.retries++;
      this.#context.notice({
        what: "A request to the web server failed",
        why: fault.message,
        remedy: "it is repeated for a while, then reads fail",
      });
    });
    // Behind the end of a file whose size is no multiple of 512 there are zeroes
    chunk.received = CHUNK_BYTES;
  }

  /** Keeps a whole chunk in memory. */
  #remember(chunk: Chunk): void {
    const memory = this.#memory;
    memory.set(chunk.index, chunk);
    for (const [oldest] of memory) {
      if (memory.size <= this.#options.memoryChunks) break;
      memory.delete(oldest);
    }
  }

  /** Completes what the bytes of a chunk that have come are enough for. */
  #serve(chunk: Chunk): void {
    const { waiting } = chunk;
    if (waiting.length === 0) return;
    let isOneDone = false;
    for (const one of waiting.splice(0)) {
      if (!this.#advance(one)) continue;
      this.#context.done(one.request, 0);
      isOneDone = true;
    }
    if (isOneDone) this.#context.flush();
  }

  #fail(chunk: Chunk, error: unknown): void {
    if (this.#isClosed) return;
    const isFinal = error instanceof HttpFault && error.isFinal;
    this.#context.notice({
      what: isFinal
        ? "The web server does not send the disk that was opened"
        : "The web server does not answer",
      why: (error as Error).message,
      remedy: "reads of what is not cached fail with I/O errors",
    });
    this.#end(chunk.waiting, Errno.EIO);
    this.#context.flush();
  }

  #end(waiting: Waiting[], errno: number): void {
    for (const { request } of waiting.splice(0)) this.#context.done(request, errno);
  }
}
