/**
 * What a block device does with requests: virtio 1.3, 5.2.6 Device Operation.
 *
 * @module
 */

import {
  type Chain,
  type HandlerResult,
  LATER,
  Parts,
  type QueueHandle,
  UNTIL_READY,
} from "../../mod.ts";
import { Errno, LinuxError } from "../../src/linux/mod.ts";
import type { Limiter } from "./limits/limiter.ts";
import { type Lifetime, LIFETIME_BYTES, writeLifetime } from "./lifetime.ts";
import { REFUSED, Request, statusOf, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_T } from "./request.ts";
import { kindOf, type SharedState } from "./shared_state.ts";
import type { Store, StoreRequest, StoreResult } from "./store.ts";
import { admitZoned, prepareZoned } from "./zoned/zoned_requests.ts";
import type { Zones } from "./zoned/zones.ts";

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

/** The piece of a long read or write, of a long write zeroes, and of a long discard. */
const DATA_PIECE_BYTES = 8 * 2 ** 20;
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
    readonly SECURE_ERASE: boolean;
    readonly LIFETIME: boolean;
    readonly ZONED: boolean;
  };
  /** Config space, live. */
  config: { readonly writeback: number };
  /** Whether writes are refused. */
  readOnly: boolean;
  /** Whether discards do something; where not, they are done with nothing done. */
  discard: boolean;
  /** Whether write zeroes may give space back. */
  unmap: boolean;
  /** Whether the store can erase beyond recovery, and tell how worn it is. */
  secureErase: boolean;
  lifetime: boolean;
  /** Whether `writeback` counts for a driver that cannot change it too. */
  writeThrough: boolean;
  /** The zones of a host-managed disk. */
  zones?: Zones;
  /** See `ThreadHost`. */
  keep<T>(promise: Promise<T>): Promise<T>;
  /** Told of a driver that does not know zones. */
  onNotZoned?(): void;
  /** Told of a request of a type that failed with an errno. */
  onFailure?(type: number, errno: number): void;
  /** The device ID string: ASCII, at most 20 bytes. */
  serial: string;
}

/** Carries out the requests of the queues of one thread. */
export class Operation {
  readonly #options: OperationOptions;
  #store: Store;
  /** Requests stay in their queues. */
  isPaused = false;
  readonly #state: SharedState;
  readonly #zones: Zones | undefined;
  readonly #id = new Uint8Array(VIRTIO_BLK_ID_BYTES);
  /** By queue and slot. */
  readonly #requests: Request[][] = [];
  /** The bytes of pending requests. */
  #laterBytes = 0;
  /** Where the disk has limits. */
  limiter: Limiter | undefined;

  /** Begins with no queue. */
  constructor(options: OperationOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#state = options.state;
    this.#zones = options.zones;
    new TextEncoder().encodeInto(options.serial, this.#id);
  }

  /** Replaces the store that carries requests out; nothing may be in flight. */
  replaceStore(store: Store): void {
    this.#store = store;
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
    if (this.isPaused) return UNTIL_READY;
    const requests = this.#requests[queue.index];
    const request = requests[chain.slot] ??= new Request(chain, queue);
    let refused = request.begin() || this.#prepare(request);
    if (this.limiter !== undefined && refused === 0 && request.steps > 0) {
      if (!this.limiter.admits(queue.index, limitedBytes(request))) return UNTIL_READY;
    }
    if (this.#zones !== undefined && refused === 0) refused = this.#admit(request, this.#zones);
    if (refused === 0 && request.steps > 0 && isLong(request)) {
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
        if (this.#zones !== undefined) return REFUSED.UNSUPPORTED;
        if (this.#options.readOnly) return REFUSED.READ_ONLY;
        return request.takeSegments(capacitySectors, MAX_WRITE_ZEROES_SECTORS) ||
          this.#makeStable(request);
      case VIRTIO_BLK_T.SECURE_ERASE:
        if (!this.#options.features.SECURE_ERASE) return REFUSED.UNSUPPORTED;
        if (this.#options.readOnly) return REFUSED.READ_ONLY;
        // An overlay, laid since it was offered, cannot erase what is below it
        if (!this.#options.secureErase || this.#store.secureErase === undefined) {
          return REFUSED.UNSUPPORTED;
        }
        return request.takeSegments(capacitySectors, MAX_DISCARD_SECTORS) ||
          this.#makeStable(request);
      case VIRTIO_BLK_T.GET_LIFETIME:
        if (!this.#options.features.LIFETIME) return REFUSED.UNSUPPORTED;
        if (!this.#options.lifetime || this.#store.lifetime === undefined) {
          return REFUSED.UNSUPPORTED;
        }
        request.steps = 1;
        return request.takeData(LIFETIME_BYTES);
      default:
        if (this.#zones === undefined) return REFUSED.UNSUPPORTED;
        return prepareZoned(request, this.#options.readOnly) ||
          (request.type === VIRTIO_BLK_T.ZONE_APPEND ? this.#makeStable(request) : 0);
    }
  }

  /** Carries out what a request means for zones; returns 0, or why it is refused. */
  #admit(request: Request, zones: Zones): number {
    if (this.#options.features.ZONED) return admitZoned(request, zones);
    // The standard has the device refuse such a driver, which is the front-end's to do
    this.#options.onNotZoned?.();
    return REFUSED.NOT_ZONED;
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
    const { features, config } = this.#options;
    if (!features.FLUSH) return true;
    return config.writeback === 0 && (features.CONFIG_WCE || this.#options.writeThrough);
  }

  /** Begins a step of a request in the store; a step without data is done at once. */
  #perform(request: Request, step: number): StoreResult {
    if (request.endsWithFlush && step === request.steps - 1) return this.#store.flush(request);
    if (request.segments > 0) request.useSegment(step);
    return request.bytes === 0 ? 0 : this.#carryOut(request);
  }

  /** Calls the store for the current range of a request. */
  #carryOut(request: Request): StoreResult {
    const store = this.#store;
    switch (request.type) {
      case VIRTIO_BLK_T.IN:
        return store.read(request);
      case VIRTIO_BLK_T.OUT:
        return store.write(request);
      case VIRTIO_BLK_T.DISCARD:
        return store.discard(request);
      case VIRTIO_BLK_T.ZONE_APPEND:
        return store.write(request);
      case VIRTIO_BLK_T.ZONE_RESET:
      case VIRTIO_BLK_T.ZONE_RESET_ALL:
        return store.writeZeroes(request, true);
      case VIRTIO_BLK_T.SECURE_ERASE:
        return store.secureErase!(request);
      case VIRTIO_BLK_T.GET_LIFETIME:
        return this.#giveLifetime(request);
      default:
        return store.writeZeroes(request, request.unmap && this.#options.unmap);
    }
  }

  #giveLifetime({ data }: Request): StoreResult {
    const give = (lifetime: Lifetime) => {
      writeLifetime(data, lifetime);
      return 0;
    };
    try {
      const lifetime = this.#store.lifetime!();
      return lifetime instanceof Promise ? lifetime.then(give) : give(lifetime);
    } catch (error) {
      return errnoOf(error);
    }
  }

  /** Continues a request whose last step had this result. */
  #advance(request: Request, result: StoreResult): HandlerResult {
    for (;;) {
      if (typeof result !== "number") {
        request.settled ??= (outcome) => this.#resume(request, outcome);
        request.rejected ??= (error) => this.#resume(request, errnoOf(error));
        return result.then(request.settled, request.rejected);
      }
      if (result === LATER) return LATER;
      if (result !== 0 || request.step === request.steps) return this.#finish(request, result);
      result = this.#perform(request, request.step++);
    }
  }

  /** Continues a request outside a batch, after a promise of its store. */
  #resume(request: Request, outcome: number): HandlerResult {
    const next = this.#advance(request, outcome);
    if (next === LATER) return Promise.resolve(this.#outcome(request, next)).then(request.settled);
    if (typeof next !== "number") this.#store.submit?.();
    return next;
  }

  /** Carries out a long request. */
  async #perPiece(request: Request): Promise<number> {
    const most = pieceBytes(request.type);
    const ranges = request.endsWithFlush ? request.steps - 1 : request.steps;
    let turnAt = performance.now() + TURN_MS;
    let outcome = 0;
    for (; request.step < ranges && outcome === 0; request.step++) {
      if (request.segments > 0) request.useSegment(request.step);
      for (let left = request.bytes; left > 0 && outcome === 0; left -= request.bytes) {
        request.bytes = Math.min(most, left);
        outcome = await this.#outcome(request, this.#carryOut(request));
        request.offset += request.bytes;
        request.dataOffset += request.bytes;
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

  /** Makes durable what was written before: the driver will flush no more. */
  async flush(): Promise<void> {
    const data = new Parts(new Uint8Array());
    const token: Awaited = { data, dataOffset: 0, offset: 0, bytes: 0, onDone: undefined };
    const outcome = await this.#outcome(token, this.#store.flush(token));
    if (outcome === 0 || NOT_DONE.includes(outcome)) return;
    this.#state.lose(outcome);
    this.#options.onFailure?.(VIRTIO_BLK_T.FLUSH, outcome);
  }

  /** The outcome of a store operation outside a batch, however the store tells it. */
  #outcome(request: Awaited, result: StoreResult): number | Promise<number> {
    if (typeof result === "number" && result !== LATER) return result;
    // First, as submit() may call done()
    const outcome = typeof result === "number"
      ? new Promise<number>((resolve) => request.onDone = resolve)
      : result.catch(errnoOf);
    this.#store.submit?.();
    return outcome;
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
    if (written !== LATER && typeof written === "number") {
      return request.queue.complete(request.chain, written);
    }
    this.#store.submit?.();
    if (typeof written === "number") return;
    // A store may answer a write by done(), and the flush after it by a promise
    void this.#options.keep(written.then((bytes) => {
      request.queue.complete(request.chain, bytes);
      request.queue.flush();
    }));
  }
}

/** A store request whose result a promise is made of. */
interface Awaited extends StoreRequest {
  onDone: ((result: number) => void) | undefined;
}

/** Errnos of a flush that was not tried to its end, such as one that was given up: nothing is lost. */
export const NOT_DONE: readonly number[] = [Errno.EAGAIN, Errno.EINTR, Errno.ECANCELED];

/** Whether a request is done in pieces. */
function isLong(request: Request): boolean {
  return (request.segments === 0 ? request.bytes : costOf(request)) > LONG_BYTES;
}

/** The most bytes of a long request that are done in one go. */
function pieceBytes(type: number): number {
  switch (type) {
    case VIRTIO_BLK_T.IN:
    case VIRTIO_BLK_T.OUT:
    case VIRTIO_BLK_T.ZONE_APPEND:
      return DATA_PIECE_BYTES;
    case VIRTIO_BLK_T.DISCARD:
    case VIRTIO_BLK_T.SECURE_ERASE:
      return DISCARD_PIECE_BYTES;
    default:
      return ZEROES_PIECE_BYTES;
  }
}

/** What a request costs, in bytes that are moved. */
function costOf({ type, chain, segments, segmentBytes }: Request): number {
  if (segments === 0) return chain.readableBytes + chain.writableBytes;
  if (type === VIRTIO_BLK_T.WRITE_ZEROES) return segmentBytes;
  return segmentBytes * DISCARD_COST + segments * SEGMENT_COST_BYTES;
}

/** What a request costs of a limit of bytes: QEMU's throttle counts those ranges too. */
function limitedBytes({ type, bytes, segmentBytes }: Request): number {
  return type === VIRTIO_BLK_T.IN || type === VIRTIO_BLK_T.OUT || type === VIRTIO_BLK_T.ZONE_APPEND
    ? bytes
    : segmentBytes;
}

/** The errno of what a store's promise was rejected with. */
export function errnoOf(error: unknown): number {
  return error instanceof LinuxError ? error.errno : Errno.EIO;
}
