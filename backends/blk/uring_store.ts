/**
 * A store in a raw disk image or a block device by io_uring, straight between the file and guest
 * memory: requests of a batch go to the kernel with the thread's next wait, and their completions
 * come with its end.
 *
 * @module
 */

import { LATER } from "../../mod.ts";
import {
  Errno,
  FALLOCATE_PUNCH_HOLE,
  type IoUring,
  type IoUser,
  IoVectors,
  isInMemory,
  LinuxError,
  type ThreadIo,
} from "../../src/linux/mod.ts";
import { descriptorFor } from "./direct.ts";
import type { FileStore } from "./file_store.ts";
import type { Lifetime } from "./lifetime.ts";
import type { FileHandle, Store, StoreHost, StoreRequest } from "./store.ts";

/** How many requests may be with the kernel; the others wait here. */
const MAX_IN_FLIGHT = 256;

/** How often a request is tried again that the kernel could not take just then. */
const MAX_RETRIES = 1000;

/**
 * Number of operations past the page cache that are submitted together. With a whole batch the disk
 * has nothing to do while the batch is prepared, and the thread nothing while the disk works: writes of
 * 4 KiB at queue depth 32 were 50 k a second so, and 64 k in fours; one by one costs a system call
 * each.
 */
const DIRECT_GROUP = 4;

/** What an operation does. */
const READ = 0, WRITE = 1, SYNC = 2, PUNCH = 3;

/** A request that the kernel works on, or that waits for room. */
class Slot {
  request: StoreRequest | undefined;
  kind = READ;
  /** How much of it was done by earlier operations. */
  done = 0;
  /** How often it was tried again. */
  retries = 0;
  /** Made when the request has more than one part that do not lie together. */
  vectors: IoVectors | undefined;

  constructor(readonly index: number) {}
}

/** Carries requests out by io_uring, those that need no waiting at once. */
export class UringStore implements Store {
  readonly #inline: FileStore;
  readonly #ring: IoUring;
  readonly #user: IoUser;
  readonly #host: StoreHost;
  readonly #handle: FileHandle;
  /** What stands for the file in operations, and for the one past the page cache. */
  readonly #file: number;
  readonly #directFile: number;
  readonly #syncFile: number;
  /** The flushes that the kernel works on, by one operation. */
  #flushing: StoreRequest[] = [];
  /** Those that came since: the next operation does them. */
  #flushes: StoreRequest[] = [];
  /** How many operations were prepared. */
  #prepared = 0;
  /** The address of index 0 of guest memory. */
  readonly #base: number;
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  /** Requests for which there was no slot. */
  #waiting: { request: StoreRequest; kind: number }[] = [];
  /** The file is in memory: there is nothing to wait for, and io_uring would hand it to a thread. */
  readonly #readsInline: boolean;
  /** Buffered writes go to the page cache at once. */
  readonly #writesInline: boolean;

  /** Attaches to a file. `inline` does what the kernel cannot do later. */
  constructor(handle: FileHandle, host: StoreHost, io: ThreadIo, inline: FileStore) {
    this.#handle = handle;
    this.#host = host;
    this.#ring = io.ring;
    this.#inline = inline;
    this.#base = host.memory.base;
    const files = registered(this.#ring, [handle.fd, inline.syncFd, handle.directFd]);
    [this.#file, this.#syncFile, this.#directFile] = files;
    const isBuffered = handle.directFd < 0;
    this.#readsInline = isBuffered && handle.io === "auto" && isInMemory(handle.fd);
    this.#writesInline = isBuffered && handle.io === "auto";
    for (let i = 0; i < MAX_IN_FLIGHT; i++) this.#slots.push(new Slot(i));
    this.#free.push(...this.#slots);
    this.#user = io.serve({
      completed: (operation, result) => this.#completed(this.#slots[operation], result),
      batchEnded: () => host.flush(),
    });
  }

  read(request: StoreRequest): number {
    if (this.#readsInline) return this.#inline.read(request);
    return this.#begin(request, READ);
  }

  write(request: StoreRequest): number {
    // The page cache takes writes at once; ext4 would have io_uring hand them to a thread of the
    // kernel, at several times the cost.
    if (this.#writesInline) return this.#inline.write(request);
    return this.#begin(request, WRITE);
  }

  /**
   * One at a time: of two, the one that is told of lost writes may not be the one that ends first.
   * Flushes that come meanwhile share the next operation.
   */
  flush(request: StoreRequest): number {
    this.#flushes.push(request);
    if (this.#flushing.length === 0) this.#beginFlush();
    return LATER;
  }

  #beginFlush(): void {
    const { length } = this.#flushes;
    if (length === 0) return;
    [this.#flushing, this.#flushes] = [this.#flushes, this.#flushing];
    this.#begin(this.#flushing[length - 1], SYNC);
  }

  #flushed(result: number): void {
    for (const request of this.#flushing) this.#host.done(request, result);
    this.#flushing.length = 0;
    this.#beginFlush();
  }

  discard(request: StoreRequest): number {
    return this.#handle.isBlockDevice ? this.#inline.discard(request) : this.#begin(request, PUNCH);
  }

  writeZeroes(request: StoreRequest, unmap: boolean): number {
    return this.#inline.writeZeroes(request, unmap);
  }

  secureErase(request: StoreRequest): number {
    return this.#inline.secureErase(request);
  }

  lifetime(): Lifetime {
    return this.#inline.lifetime();
  }

  close(): void {
    // The list may be that of another store on this thread.
    if (this.#file < 0) this.#ring.unregisterFiles();
    this.#inline.close();
  }

  #begin(request: StoreRequest, kind: number): number {
    const slot = this.#free.pop();
    if (slot === undefined) {
      this.#waiting.push({ request, kind });
      return LATER;
    }
    slot.request = request;
    slot.kind = kind;
    slot.done = slot.retries = 0;
    this.#prepare(slot);
    return LATER;
  }

  /** Prepares the (next) operation of a slot. */
  #prepare(slot: Slot): void {
    this.#prepareOperation(slot);
    if (this.#handle.directFd >= 0 && ++this.#prepared % DIRECT_GROUP === 0) {
      this.#ring.enter(false);
    }
  }

  #prepareOperation(slot: Slot): void {
    const ring = this.#ring;
    // Submitting makes room; the kernel may say "later" only while it is short of memory.
    while (ring.room === 0) ring.enter(false);
    const request = slot.request!;
    const token = this.#user.data(slot.index);
    switch (slot.kind) {
      case SYNC:
        return ring.dataSync(this.#syncFile, token);
      case PUNCH:
        return ring.allocate(
          this.#file,
          FALLOCATE_PUNCH_HOLE,
          this.#handle.start + request.offset,
          request.bytes,
          token,
        );
    }
    const { data, dataOffset } = request;
    const offset = this.#handle.start + request.offset + slot.done;
    const bytes = request.bytes - slot.done;
    const isDirect = descriptorFor(this.#handle, request, slot.done) !== this.#handle.fd;
    const file = isDirect ? this.#directFile : this.#file;
    const index = data.locate(dataOffset + slot.done, bytes);
    if (index >= 0) {
      const address = this.#base + index;
      if (slot.kind === READ) ring.read(file, address, bytes, offset, token);
      else ring.write(file, address, bytes, offset, token);
      return;
    }
    const vectors = slot.vectors ??= new IoVectors();
    vectors.count = 0;
    data.gather(vectors, this.#base, dataOffset + slot.done, bytes);
    const { address, count } = vectors;
    if (slot.kind === READ) ring.readVectors(file, address, count, offset, token);
    else ring.writeVectors(file, address, count, offset, token);
  }

  #completed(slot: Slot, result: number): void {
    const request = slot.request!;
    const isPassing = result === -Errno.EAGAIN || result === -Errno.EINTR;
    if (isPassing && slot.retries++ < MAX_RETRIES) return this.#prepare(slot);
    if (result > 0 && slot.kind <= WRITE) {
      slot.done += result;
      // Fewer bytes than asked for are no error: the rest is asked for again.
      if (slot.done < request.bytes) return this.#prepare(slot);
      result = 0;
    } else if (result === 0 && slot.kind <= WRITE) {
      // The file ends before its disk does, as another program truncated it.
      result = slot.kind === WRITE ? -Errno.EIO : -Errno.ENODATA;
    } else if (slot.kind === PUNCH && (result === -Errno.EOPNOTSUPP || result === -Errno.EINVAL)) {
      // A discard is advice, and what cannot take it need not.
      result = 0;
    }
    slot.request = undefined;
    this.#free.push(slot);
    if (slot.kind === SYNC) this.#flushed(-result);
    else this.#host.done(request, -result);
    if (this.#waiting.length > 0) {
      const next = this.#waiting.shift()!;
      this.#begin(next.request, next.kind);
    }
  }
}

/**
 * Registers a store's files, -1 standing for none.
 *
 * @returns What stands for them in operations: where the kernel does not take them, their
 * descriptors.
 */
function registered(ring: IoUring, fds: readonly number[]): number[] {
  const files = fds.filter((fd) => fd >= 0);
  try {
    const numbers = ring.registerFiles(files);
    return fds.map((fd) => fd < 0 ? fd : numbers[files.indexOf(fd)]);
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    return [...fds];
  }
}
