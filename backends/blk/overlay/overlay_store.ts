/**
 * An overlay on a queue thread: what was written is in its file, the rest in its base.
 *
 * A request on blocks that are all in the file, or all in the base, goes there as it is. What a
 * block takes more than one operation for is a {@linkcode Job}: its steps are a generator, which is
 * resumed by whatever completes them.
 *
 * @module
 */

import { LATER, Parts } from "../../../mod.ts";
import { Errno, LinuxError } from "../../../src/linux/mod.ts";
import type { OverlayHandle, Store, StoreRequest, StoreResult, ThreadHost } from "../store.ts";
import { OVERLAY_BLOCK_BYTES } from "./format.ts";
import { blockOf, type MapSnapshot, OverlayMap } from "./overlay_map.ts";

/** Blocks of the base that a thread can have in its hands, to copy parts of them. */
const COPIES = 64;

/** How long a block may stay busy by another thread until it is looked at again, in milliseconds. */
const BUSY_MS = 1;

/** Operations one after the other; each `yield` takes what a store answers and gives the result. */
type Steps = Generator<StoreResult, number, number>;

/** A request that takes several operations. It stands for the operation of the moment. */
class Job implements StoreRequest {
  /** The overlay that it is of: the base can be one too. */
  readonly owner: OverlayStore;
  request!: StoreRequest;
  steps!: Steps;
  data!: StoreRequest["data"];
  dataOffset = 0;
  offset = 0;
  bytes = 0;

  constructor(owner: OverlayStore) {
    this.owner = owner;
  }

  /** Becomes an operation on a range of its request. */
  part(offset: number, bytes: number): this {
    const { request } = this;
    this.data = request.data;
    this.dataOffset = request.dataOffset + offset - request.offset;
    this.offset = offset;
    this.bytes = bytes;
    return this;
  }

  /** Becomes an operation on other memory. */
  on(data: Parts, dataOffset: number, offset: number, bytes: number): this {
    this.data = data;
    this.dataOffset = dataOffset;
    this.offset = offset;
    this.bytes = bytes;
    return this;
  }
}

/** Attaches a queue thread to an overlay. */
export async function attachOverlayStore(
  handle: OverlayHandle,
  host: ThreadHost,
  attach: Attach,
): Promise<Store> {
  return await attachOver(handle, host, attach, (host) => attach(handle.base, host));
}

/** Attaches to a store. */
type Attach = (handle: OverlayHandle["base"], host: ThreadHost) => Promise<Store>;

/** As {@linkcode attachOverlayStore}, where the base is attached in another way. */
export async function attachOver(
  handle: OverlayHandle,
  host: ThreadHost,
  attach: Attach,
  attachBase: (host: ThreadHost) => Promise<Store>,
): Promise<OverlayStore> {
  let overlay: OverlayStore | undefined = undefined;
  const below: ThreadHost = {
    ...host,
    done: (request, result) => overlay!.done(request, result),
  };
  const delta = await attach(handle.delta, below);
  const base = await attachBase(below);
  return overlay = new OverlayStore(handle, host, delta, base);
}

/** Carries requests out by the file of an overlay and by its base. */
export class OverlayStore implements Store {
  readonly #handle: OverlayHandle;
  readonly #host: ThreadHost;
  readonly #delta: Store;
  readonly #base: Store;
  readonly #map: OverlayMap;
  readonly #free: Job[] = [];
  /** Jobs that wait for a block, or for memory to copy one. */
  #blocked: Job[] = [];
  #isPolling = false;
  /** Memory for blocks of the base. */
  readonly #copies: Parts[] = [];
  #hasCopies = false;
  /** The flush that makes the map durable, and those that came since: the next one is theirs. */
  #isFlushing = false;
  #flushes: StoreRequest[] = [];

  constructor(handle: OverlayHandle, host: ThreadHost, delta: Store, base: Store) {
    this.#handle = handle;
    this.#host = host;
    this.#delta = delta;
    this.#base = base;
    this.#map = new OverlayMap(handle.maps);
  }

  read(request: StoreRequest): number {
    const { offset, bytes } = request;
    const first = blockOf(offset), last = blockOf(offset + bytes - 1);
    const { live } = this.#map;
    if (live.hasAll(first, last)) return this.#answer(request, this.#delta.read(request));
    if (offset + bytes <= this.#handle.baseBytes && !live.hasAny(first, last)) {
      return this.#answer(request, this.#base.read(request));
    }
    return this.#begin(request, (job) => this.#readBoth(job, first, last));
  }

  write(request: StoreRequest): number {
    const first = blockOf(request.offset), last = blockOf(request.offset + request.bytes - 1);
    if (this.#map.live.hasAll(first, last)) {
      return this.#answer(request, this.#delta.write(request));
    }
    const { offset, bytes } = request;
    return this.#begin(
      request,
      (job) => this.#change(job, offset, bytes, () => this.#delta.write(job.part(offset, bytes))),
    );
  }

  writeZeroes(request: StoreRequest, unmap: boolean): number {
    return this.#clear(request, request.offset, request.bytes, unmap);
  }

  /** Makes the whole blocks of a range zeroes: what the base has there must not come back. */
  discard(request: StoreRequest): number {
    const { offset, bytes } = request;
    const start = Math.ceil(offset / OVERLAY_BLOCK_BYTES) * OVERLAY_BLOCK_BYTES;
    const end = blockOf(offset + bytes) * OVERLAY_BLOCK_BYTES;
    return start < end ? this.#clear(request, start, end - start, true) : 0;
  }

  #clear(request: StoreRequest, offset: number, bytes: number, unmap: boolean): number {
    return this.#begin(
      request,
      (job) =>
        this.#change(
          job,
          offset,
          bytes,
          () => this.#delta.writeZeroes(job.part(offset, bytes), unmap),
        ),
    );
  }

  flush(request: StoreRequest): number {
    if (!this.#isFlushing && !this.#map.hasNew) {
      return this.#answer(request, this.#delta.flush(request));
    }
    this.#flushes.push(request);
    return this.#isFlushing ? LATER : this.#beginFlush(request);
  }

  submit(): void {
    this.#delta.submit?.();
    this.#base.submit?.();
  }

  cancel(): void {
    this.#delta.cancel?.();
    this.#base.cancel?.();
  }

  close(): void {
    this.#delta.close?.();
    this.#base.close?.();
  }

  /** The file or the base has a result: of a request of the driver, or of a job's operation. */
  done(request: StoreRequest, result: number): void {
    if (request instanceof Job && request.owner === this) this.#resume(request, result);
    else this.#host.done(request, result);
  }

  /** The answer about a request that went to the file or to the base as it is. */
  #answer(request: StoreRequest, result: StoreResult): number {
    if (typeof result === "number") return result;
    this.#host.keep(
      result.catch(errnoOf).then((outcome) => {
        this.done(request, outcome);
        this.#host.flush();
      }),
    );
    return LATER;
  }

  #begin(request: StoreRequest, steps: (job: Job) => Steps): number {
    const job = this.#free.pop() ?? new Job(this);
    job.request = request;
    job.steps = steps(job);
    return this.#advance(job, 0);
  }

  /** Resumes a job that had answered `LATER`. */
  #resume(job: Job, result: number): void {
    const { request } = job;
    const outcome = this.#advance(job, result);
    if (outcome !== LATER) this.#host.done(request, outcome);
  }

  /** Goes on with a job until an operation of it takes time, or it ends. */
  #advance(job: Job, result: number): number {
    for (;;) {
      const { value, done } = job.steps.next(result);
      if (done) {
        this.#free.push(job);
        return value;
      }
      result = this.#answer(job, value);
      if (result === LATER) return LATER;
    }
  }

  /** Reads a range that is in the file and in the base: the base once, then the file over it. */
  *#readBoth(job: Job, first: number, last: number): Steps {
    const { request } = job;
    const { live } = this.#map;
    const { baseBytes, baseBlockBytes } = this.#handle;
    const end = request.offset + request.bytes;
    const place = live.find(false, first, last) * OVERLAY_BLOCK_BYTES;
    const start = Math.max(request.offset, place - place % baseBlockBytes);
    let stop = last;
    while (stop > first && live.has(stop)) stop--;
    const blocksEnd = (stop + 1) * OVERLAY_BLOCK_BYTES;
    const baseEnd = Math.min(end, Math.ceil(blocksEnd / baseBlockBytes) * baseBlockBytes);
    if (baseEnd > baseBytes) {
      const zeroes = Math.max(start, baseBytes);
      request.data.fill(0, request.dataOffset + zeroes - request.offset, baseEnd - zeroes);
    }
    const bytes = Math.min(baseEnd, baseBytes) - start;
    if (bytes > 0) {
      const result = yield this.#base.read(job.part(start, bytes));
      if (result !== 0) return result;
    }
    for (let block = live.find(true, first, last); block <= last;) {
      const next = live.find(false, block, last);
      const from = Math.max(request.offset, block * OVERLAY_BLOCK_BYTES);
      const to = Math.min(end, next * OVERLAY_BLOCK_BYTES);
      const result = yield this.#delta.read(job.part(from, to - from));
      if (result !== 0) return result;
      block = next > last ? next : live.find(true, next, last);
    }
    return 0;
  }

  /** Changes blocks of which some are not in the file, and puts those there. */
  *#change(job: Job, offset: number, bytes: number, change: () => StoreResult): Steps {
    const end = offset + bytes;
    const first = blockOf(offset), last = blockOf(end - 1);
    const { busy, live } = this.#map;
    if (live.hasAll(first, last)) return yield change();
    while (!busy.addIfNone(first, last)) yield this.#block(job);
    let result = 0;
    if (offset % OVERLAY_BLOCK_BYTES !== 0 && !live.has(first)) {
      result = yield* this.#copy(job, first, offset, end);
    }
    const isTwice = first === last && offset % OVERLAY_BLOCK_BYTES !== 0;
    if (result === 0 && end % OVERLAY_BLOCK_BYTES !== 0 && !live.has(last) && !isTwice) {
      result = yield* this.#copy(job, last, offset, end);
    }
    if (result === 0) result = yield change();
    if (result === 0) {
      const { delta, liveOffset } = this.#handle;
      result = this.#map.allocate(first, last, delta.fd, liveOffset);
    }
    busy.remove(first, last);
    this.#unblock();
    return result;
  }

  /** Copies what a block has outside of a range from the base to the file. */
  *#copy(job: Job, block: number, offset: number, end: number): Steps {
    let parts: Parts | undefined;
    while ((parts = this.#takeCopy()) === undefined) yield this.#block(job);
    const start = block * OVERLAY_BLOCK_BYTES;
    const { baseBytes } = this.#handle;
    const bytes = Math.max(0, Math.min(OVERLAY_BLOCK_BYTES, baseBytes - start));
    if (bytes < OVERLAY_BLOCK_BYTES) parts.fill(0, bytes, OVERLAY_BLOCK_BYTES - bytes);
    let result = 0;
    if (bytes > 0) result = yield this.#base.read(job.on(parts, 0, start, bytes));
    if (result === 0 && offset > start) {
      result = yield this.#delta.write(job.on(parts, 0, start, offset - start));
    }
    const rest = start + OVERLAY_BLOCK_BYTES - end;
    if (result === 0 && rest > 0) {
      result = yield this.#delta.write(job.on(parts, end - start, end, rest));
    }
    this.#copies.push(parts);
    this.#unblock();
    return result;
  }

  #takeCopy(): Parts | undefined {
    if (!this.#hasCopies) {
      this.#hasCopies = true;
      const { memory } = this.#host;
      const index = memory.scratch(COPIES * OVERLAY_BLOCK_BYTES);
      for (let i = 0; i < COPIES; i++) {
        const parts = new Parts(memory.u8);
        parts.push(index + i * OVERLAY_BLOCK_BYTES, OVERLAY_BLOCK_BYTES);
        this.#copies.push(parts);
      }
    }
    return this.#copies.pop();
  }

  /** Blocks a job until another one ends, here or on another thread. */
  #block(job: Job): number {
    this.#blocked.push(job);
    if (!this.#isPolling) {
      this.#isPolling = true;
      const later = new Promise<void>((resolve) => setTimeout(resolve, BUSY_MS));
      this.#host.keep(later.then(() => {
        this.#isPolling = false;
        this.#unblock();
        this.#host.flush();
      }));
    }
    return LATER;
  }

  #unblock(): void {
    if (this.#blocked.length === 0) return;
    const jobs = this.#blocked;
    this.#blocked = [];
    for (const job of jobs) this.#resume(job, 0);
  }

  #beginFlush(request: StoreRequest): number {
    this.#isFlushing = true;
    const requests = this.#flushes;
    this.#flushes = [];
    return this.#begin(request, (job) => this.#flushMap(job, requests));
  }

  /** Makes the data of new blocks durable, then the map. Ends several flushes; the last is its own. */
  *#flushMap(job: Job, requests: StoreRequest[]): Steps {
    const snapshot = this.#map.snapshot();
    let result = yield this.#delta.flush(job);
    if (result === 0 && snapshot.pages.length > 0) result = yield* this.#writeMap(job, snapshot);
    this.#isFlushing = false;
    for (const request of requests) {
      if (request !== job.request) this.#host.done(request, result);
    }
    const next = this.#flushes.at(-1);
    if (next !== undefined) {
      const outcome = this.#beginFlush(next);
      if (outcome !== LATER) this.#host.done(next, outcome);
    }
    return result;
  }

  *#writeMap(job: Job, snapshot: MapSnapshot): Steps {
    const { delta, durableOffset } = this.#handle;
    let result = this.#map.writeDurable(snapshot, delta.fd, durableOffset);
    if (result === 0) result = yield this.#delta.flush(job);
    if (result === 0) this.#map.noteDurable(snapshot);
    return result;
  }
}

/** The errno of what a store's promise was rejected with. */
function errnoOf(error: unknown): number {
  return error instanceof LinuxError ? error.errno : Errno.EIO;
}
