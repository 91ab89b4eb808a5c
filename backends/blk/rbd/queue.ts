/**
 * An image in a Ceph cluster, on the queue thread: requests go from guest memory to librbd and back.
 *
 * @module
 */

import type { DeviceNotice } from "../../../mod.ts";
import { drainEventfd, Errno, IoVectors, pinnedBuffer } from "../../../src/linux/mod.ts";
import { LATER, type StoreContext, type StoreRequest } from "../module/mod.ts";
import { type Ceph, loadCeph } from "./librbd.ts";

/** The most requests that librbd works on; others wait here. */
const MAX_IN_FLIGHT = 512;

/** The most completions that a call takes from librbd. */
const MAX_COMPLETIONS = 64;

/** What a request does. */
export const READ = 0, WRITE = 1, FLUSH = 2, DISCARD = 3, ZEROES = 4, THICK_ZEROES = 5;

/** librbd.h: zeroes that take space. */
const RBD_WRITE_ZEROES_FLAG_THICK_PROVISION = 1;

/** What errnos say about the cluster. */
const NOTICES: Readonly<Record<number, DeviceNotice>> = {
  [Errno.ESHUTDOWN]: {
    what: "Ceph shut this client out (it is on the blocklist)",
    why: "another client took over the image, or an administrator put it there",
    remedy: "all requests fail until vhostd is started again",
  },
  [Errno.EROFS]: {
    what: "Ceph refuses writes",
    why: "another client keeps the exclusive lock of the image",
    remedy: "rbd lock ls POOL/IMAGE names it",
  },
  [Errno.ETIMEDOUT]: {
    what: "Ceph did not answer",
    why: "requests took longer than the timeout that was asked for",
    remedy: "ceph -s tells how the cluster is",
  },
};

/** What the main thread shares. */
export interface SharedImage {
  /** librbd's handle. */
  readonly handle: bigint;
  /** The number of the eventfd that tells of completions. */
  readonly completions: number;
}

/** A request that librbd works on. */
class Slot {
  request: StoreRequest | undefined;
  kind = READ;
  /** The memory of a read or a write, which librbd looks at until the completion. */
  vectors: IoVectors | undefined;

  constructor(readonly index: number) {}
}

// Places in the arguments of calls
const IMAGE = 0, COMPLETION = 1, OFFSET = 2, BYTES = 3;

/** Carries out the requests of all queues. */
export class RbdQueue {
  readonly #ceph: Ceph = loadCeph();
  readonly #context: StoreContext;
  readonly #slots: Slot[] = [];
  readonly #free: Slot[] = [];
  /** Requests for which there was no slot. */
  readonly #waiting: { request: StoreRequest; kind: number }[] = [];
  /**
   * Arguments of 64 bits, and the same memory in words. V8 hands on a BigInt that is read on the spot
   * without making an object.
   */
  readonly #arguments = new BigUint64Array(pinnedBuffer(32), 0, 4);
  readonly #words = new Uint32Array(this.#arguments.buffer, 0, 8);
  /** Where librbd puts a new completion. */
  readonly #completion = this.#arguments.subarray(COMPLETION, COMPLETION + 1);
  /** Completions that librbd handed out. */
  readonly #completed = new BigUint64Array(pinnedBuffer(8 * MAX_COMPLETIONS));

  constructor(context: StoreContext) {
    this.#context = context;
    const { handle, completions } = context.shared as SharedImage;
    this.#arguments[IMAGE] = handle;
    for (let i = MAX_IN_FLIGHT - 1; i >= 0; i--) this.#free.push(this.#slots[i] = new Slot(i));
    context.watch(completions, "readable", () => this.#reap(completions));
  }

  /** Begins a request, or has it wait. */
  begin(request: StoreRequest, kind: number): number {
    const slot = this.#free.pop();
    if (slot === undefined) {
      this.#waiting.push({ request, kind });
      return LATER;
    }
    slot.request = request;
    slot.kind = kind;
    const result = this.#start(slot, request);
    if (result >= 0) return LATER;
    this.#release(slot);
    return -result;
  }

  /** Hands a request to librbd; returns a negative errno when it does not take it. */
  #start(slot: Slot, request: StoreRequest): number {
    const ceph = this.#ceph;
    const created = ceph.rbd_aio_create_completion(slot.index, null, this.#completion);
    if (created < 0) return created;
    const result = this.#call(slot, request);
    if (result < 0) ceph.rbd_aio_release(this.#arguments[COMPLETION]);
    return result;
  }

  #call(slot: Slot, { data, dataOffset, offset, bytes }: StoreRequest): number {
    const ceph = this.#ceph, values = this.#arguments, words = this.#words;
    words[2 * OFFSET] = offset;
    words[2 * OFFSET + 1] = offset / 2 ** 32;
    words[2 * BYTES] = bytes;
    words[2 * BYTES + 1] = bytes / 2 ** 32;
    switch (slot.kind) {
      case READ:
      case WRITE: {
        const vectors = slot.vectors ??= new IoVectors();
        vectors.count = 0;
        // A chain has no more parts than there is room for
        data.gather(vectors, this.#context.memory.base, dataOffset, bytes);
        const { entries, count } = vectors;
        return slot.kind === READ
          ? ceph.rbd_aio_readv(values[IMAGE], entries, count, values[OFFSET], values[COMPLETION])
          : ceph.rbd_aio_writev(values[IMAGE], entries, count, values[OFFSET], values[COMPLETION]);
      }
      case FLUSH:
        return ceph.rbd_aio_flush(values[IMAGE], values[COMPLETION]);
      case DISCARD:
        return ceph.rbd_aio_discard(
          values[IMAGE],
          values[OFFSET],
          values[BYTES],
          values[COMPLETION],
        );
      default:
        return ceph.rbd_aio_write_zeroes(
          values[IMAGE],
          values[OFFSET],
          values[BYTES],
          values[COMPLETION],
          slot.kind === THICK_ZEROES ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0,
          0,
        );
    }
  }

  /** Takes completions from librbd. */
  #reap(completions: number): void {
    // Before they are looked for: none that comes later is missed
    drainEventfd(completions);
    const ceph = this.#ceph, completed = this.#completed;
    let count: number;
    do {
      count = ceph.rbd_poll_io_events(this.#arguments[IMAGE], completed, MAX_COMPLETIONS);
      for (let i = 0; i < count; i++) {
        const slot = this.#slots[ceph.rbd_aio_get_arg(completed[i])];
        const result = ceph.rbd_aio_get_return_value(completed[i]);
        ceph.rbd_aio_release(completed[i]);
        this.#done(slot, result);
      }
    } while (count === MAX_COMPLETIONS);
    this.#context.flush();
  }

  #done(slot: Slot, result: number): void {
    const request = slot.request!;
    let errno = result < 0 ? -result : 0;
    if (slot.kind === READ) {
      if (result === (request.bytes | 0)) errno = 0;
      // The image ends before its disk does, as another client made it shorter
      else if (result >= 0) errno = Errno.EIO;
    }
    this.#release(slot);
    if (errno !== 0 && NOTICES[errno] !== undefined) this.#context.notice(NOTICES[errno]);
    this.#context.done(request, errno);
    // One that fails at once leaves its slot to the next
    for (let next; this.#free.length > 0 && (next = this.#waiting.shift()) !== undefined;) {
      const began = this.begin(next.request, next.kind);
      if (began !== LATER) this.#context.done(next.request, began);
    }
  }

  #release(slot: Slot): void {
    slot.request = undefined;
    this.#free.push(slot);
  }
}
