/**
 * What a block device does with requests: virtio 1.3, 5.2.6 Device Operation.
 *
 * @module
 */

import { type Chain, type HandlerResult, LATER, type QueueHandle } from "../../mod.ts";
import { Errno, LinuxError } from "../../src/linux/mod.ts";
import { REFUSED, Request, statusOf, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_T } from "./request.ts";
import { kindOf, type SharedState } from "./shared_state.ts";
import type { Store, StoreRequest, StoreResult } from "./store.ts";

/**
 * The most sectors in a segment of a discard, and of a write zeroes, which may have to be written
 * byte by byte while other requests wait.
 */
export const MAX_DISCARD_SECTORS = 2 ** 22;
export const MAX_WRITE_ZEROES_SECTORS = 2 ** 17;

/**
 * A request that costs more than this, in bytes that are moved, is long. It is done in pieces with
 * turns of other queues in between, and its queue takes no other request meanwhile. So a stop waits
 * for one long request, not for all that a guest can make available.
 */
const LONG_BYTES = 2 ** 23;

/** The piece of a long write zeroes, and of a long discard. */
const ZEROES_PIECE_BYTES = 16 * 2 ** 20;
const DISCARD_PIECE_BYTES = 256 * 2 ** 20;

/** What a discarded byte costs, and a segment of a discard, in bytes that are moved. */
const DISCARD_COST = 1 / 64, SEGMENT_COST_BYTES = 65_536;

/** How long pieces may take before others have their turn, in milliseconds. */
const TURN_MS = 5;

/** The most bytes of pending requests on a thread; beyond it, queues take no more. */
const MAX_LATER_BYTES = 2 ** 30;

/** What the requests of a thread are carried out with. */
export interface OperationOptions {
  /** The thread's own store. */
  store: Store;
  /** Capacity and counts. */
  state: SharedState;
  /** The features that were acknowledged, live. */
  features: {
    readonly FLUSH: boolean;
    readonly CONFIG_WCE: boolean;
    readonly DISCARD: boolean;
    readonly WRITE_ZEROES: boolean;
  };
  /** Config space, live. */
  config: { readonly writeback: number };
  /** Whether writes are refused. */
  readOnly: boolean;
  /** Whether discards do something; where not, they are done with nothing done. */
  discard: boolean;
  /** Whether write zeroes may give space back. */
  unmap: boolean;
  /** Told of a request of a type that failed with an errno. */
  onFailure?(type: number, errno: number): void;
  /** The device ID string: ASCII, at most 20 bytes. */
  serial: string;
}

/** Carries out the requests of the queues of one thread. */
export class Operation {
  readonly #options: OperationOptions;
  readonly #store: Store;
  readonly #state: SharedState;
  readonly #id = new Uint8Array(VIRTIO_BLK_ID_BYTES);
  /** By queue and slot. */
  readonly #requests: Request[][] = [];
  /** The bytes of pending requests. */
  #laterBytes = 0;

  /** Begins with no queue. */
  constructor(options: OperationOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#state = options.state;
    new TextEncoder().encodeInto(options.serial, this.#id);
  }

  /** A ring starts: its slots are new ones. */
  start(queue: QueueHandle): void {
    this.#requests[queue.index] = [];
  }

  /**
   * Handles a request.
   *
   * @throws {Error} When it has no room for a status.
   */
  handle(chain: Chain, queue: QueueHandle): HandlerResult {
    const requests = this.#requests[queue.index];
    const request = requests[chain.slot] ??= new Request(chain, queue);
    const refused = request.begin() || this.#prepare(request);
    if (refused === 0 && request.segments > 0 && costOf(request) > LONG_BYTES) {
      queue.hold();
      return this.#perPiece(request);
    }
    const result = this.#advance(request, refused);
    if (result === LATER || typeof result !== "number") {
      request.laterBytes = costOf(request);
      this.#laterBytes += request.laterBytes;
      if (this.#laterBytes > MAX_LATER_BYTES) queue.hold();
    }
    return result;
  }

  /** The kind of the request of a chain. */
  kindOf(chain: Chain, queue: QueueHandle): number {
    return kindOf(this.#requests[queue.index][chain.slot].type);
  }

  /** Checks a request and decides how many steps it takes; returns 0, or why it is refused. */
  #prepare(request: Request): number {
    const { capacitySectors } = this.#state;
    switch (request.type) {
      case VIRTIO_BLK_T.IN:
        request.steps = 1;
        return request.takeRange(capacitySectors);
      case VIRTIO_BLK_T.OUT:
        if (this.#options.readOnly) return REFUSED.READ_ONLY;
        request.steps = 1;
        return request.takeRange(capacitySectors) || this.#makeStable(request);
      case VIRTIO_BLK_T.FLUSH:
        return this.#flushLast(request);
      case VIRTIO_BLK_T.GET_ID:
        request.data.fill(0);
        request.data.write(0, this.#id); // the status is written over what is too long
        return 0;
      case VIRTIO_BLK_T.DISCARD: {
        if (!this.#options.features.DISCARD) return REFUSED.UNSUPPORTED;
        if (this.#options.readOnly) return REFUSED.READ_ONLY;
        const refused = request.takeSegments(capacitySectors, MAX_DISCARD_SECTORS);
        // Negotiated when it was offered: a discard is advice
        if (!this.#options.discard) request.steps = request.segments = 0;
        return refused;
      }
      case VIRTIO_BLK_T.WRITE_ZEROES:
        if (!this.#options.features.WRITE_ZEROES) return REFUSED.UNSUPPORTED;
        if (this.#options.readOnly) return REFUSED.READ_ONLY;
        return request.takeSegments(capacitySectors, MAX_WRITE_ZEROES_SECTORS) ||
          this.#makeStable(request);
      default:
        return REFUSED.UNSUPPORTED;
    }
  }

  /** Ends a write with a flush where it is to be stable when it is completed: virtio 1.3, 5.2.6.2. */
  #makeStable(request: Request): number {
    return this.#isWriteThrough ? this.#flushLast(request) : 0;
  }

  /** Adds a flush as the last step; returns why there can be none. */
  #flushLast(request: Request): number {
    request.steps++;
    request.endsWithFlush = true;
    return this.#state.lostErrno;
  }

  /** Whether writes are stable at once: a driver that cannot flush has no other way. */
  get #isWriteThrough(): boolean {
    const { FLUSH, CONFIG_WCE } = this.#options.features;
    return !FLUSH || (CONFIG_WCE && this.#options.config.writeback === 0);
  }

  /** Has the store do the next step, if there is something to do in it. */
  #perform(request: Request, step: number): StoreResult {
    const store = this.#store;
    if (request.endsWithFlush && step === request.steps - 1) return store.flush(request);
    switch (request.type) {
      case VIRTIO_BLK_T.IN:
        return request.bytes === 0 ? 0 : store.read(request);
      case VIRTIO_BLK_T.OUT:
        return request.bytes === 0 ? 0 : store.write(request);
      default:
        request.useSegment(step);
        return request.bytes === 0 ? 0 : this.#clear(request);
    }
  }

  /** Has the store discard a range, or fill it with zeroes. */
  #clear(request: Request): StoreResult {
    if (request.type === VIRTIO_BLK_T.DISCARD) return this.#store.discard(request);
    return this.#store.writeZeroes(request, request.unmap && this.#options.unmap);
  }

  /** Continues a request whose last step had this result. */
  #advance(request: Request, result: StoreResult): HandlerResult {
    for (;;) {
      if (typeof result !== "number") {
        return result.catch(errnoOf).then((outcome) => this.#advance(request, outcome));
      }
      if (result === LATER) return LATER;
      if (result !== 0 || request.step === request.steps) return this.#finish(request, result);
      result = this.#perform(request, request.step++);
    }
  }

  /** Carries out a long discard or write zeroes. */
  async #perPiece(request: Request): Promise<number> {
    const most = request.type === VIRTIO_BLK_T.DISCARD ? DISCARD_PIECE_BYTES : ZEROES_PIECE_BYTES;
    let turnAt = performance.now() + TURN_MS;
    let outcome = 0;
    for (; request.step < request.segments && outcome === 0; request.step++) {
      request.useSegment(request.step);
      for (let left = request.bytes; left > 0 && outcome === 0; left -= request.bytes) {
        request.bytes = Math.min(most, left);
        outcome = await this.#outcome(request, this.#clear(request));
        request.offset += request.bytes;
        if (performance.now() < turnAt) continue;
        await new Promise<void>((resolve) => setTimeout(resolve, 0));
        turnAt = performance.now() + TURN_MS;
      }
    }
    if (outcome === 0 && request.endsWithFlush) {
      request.step = request.steps;
      outcome = await this.#outcome(request, this.#store.flush(request));
    }
    return this.#finish(request, outcome);
  }

  /** The outcome of a store operation, however the store tells it. */
  #outcome(request: Request, result: StoreResult): StoreResult {
    if (typeof result !== "number") return result.catch(errnoOf);
    if (result !== LATER) return result;
    return new Promise<number>((resolve) => request.onDone = resolve);
  }

  #finish(request: Request, outcome: number): number {
    this.#laterBytes -= request.laterBytes;
    request.laterBytes = 0;
    if (request.endsWithFlush && request.step === request.steps) {
      // Another queue's flush may have been told what this one was not
      if (outcome > 0 && !NOT_DONE.includes(outcome)) this.#state.lose(outcome);
      else outcome ||= this.#state.lostErrno;
    }
    this.#state.count(request.queue.index, request.type, request.sector, outcome);
    if (outcome > 0) this.#options.onFailure?.(request.type, outcome);
    return request.end(statusOf(outcome));
  }

  /** The store has the result of a step for which it answered `LATER`. */
  done(token: StoreRequest, result: number): void {
    const request = token as Request;
    const { onDone } = request;
    if (onDone !== undefined) {
      request.onDone = undefined;
      return onDone(result);
    }
    const written = this.#advance(request, result);
    if (typeof written !== "number") {
      throw new TypeError("A store that answers LATER answered with a promise");
    }
    if (written !== LATER) request.queue.complete(request.chain, written);
  }
}

/** Errnos of a flush that was not tried to its end, such as one that was given up: nothing is lost. */
export const NOT_DONE: readonly number[] = [Errno.EAGAIN, Errno.EINTR, Errno.ECANCELED];

/** What a request costs, in bytes that are moved. */
function costOf({ type, chain, segments, segmentBytes }: Request): number {
  if (segments === 0) return chain.readableBytes + chain.writableBytes;
  if (type === VIRTIO_BLK_T.WRITE_ZEROES) return segmentBytes;
  return segmentBytes * DISCARD_COST + segments * SEGMENT_COST_BYTES;
}

/** The errno of what a store's promise was rejected with. */
function errnoOf(error: unknown): number {
  return error instanceof LinuxError ? error.errno : Errno.EIO;
}
