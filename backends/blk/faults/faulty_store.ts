/**
 * A store whose requests fail on purpose, around any other.
 *
 * @module
 */

import { LATER } from "../../../mod.ts";
import { createTimer, drainEventfd, Errno, setTimer } from "../../../src/linux/mod.ts";
import { errnoOf } from "../operation.ts";
import type { Store, StoreRequest, StoreResult, ThreadHost } from "../store.ts";
import { type FaultPlan, type FaultRule, FAULTS, REQUESTS } from "./fault_plan.ts";

const [READ, WRITE, FLUSH, DISCARD, ZEROES, ERASE] = REQUESTS.keys();

/** Random numbers are whole and below this. */
const RANDOM_RANGE = 2 ** 30;

/** A request that the store gets later. */
interface Held {
  readonly kind: number;
  readonly request: StoreRequest;
  readonly unmap: boolean;
  /** When, in milliseconds; Infinity until the faults change. */
  readonly at: number;
}

/** The beginning of a request, and how the whole one ends. */
class Beginning implements StoreRequest {
  readonly data;
  readonly dataOffset;
  readonly offset;

  constructor(readonly whole: StoreRequest, readonly bytes: number, readonly outcome: number) {
    ({ data: this.data, dataOffset: this.dataOffset, offset: this.offset } = whole);
  }
}

/** What it is made from, beside its thread's host. */
export interface FaultySetup {
  readonly plan: FaultPlan;
  /** Counts of faults by {@linkcode FAULTS}, then of requests that are held: 32-bit, shared. */
  readonly counts: SharedArrayBuffer;
  /** What requests are multiples of, in bytes. */
  readonly blockBytes: number;
}

/**
 * A faulty store of a thread. What its inner store answers by promises, it answers by `done`, as it
 * does with requests that it holds.
 */
export class FaultyStore implements Store {
  readonly secureErase: Store["secureErase"];
  readonly lifetime: Store["lifetime"];
  /** The store below, which an overlay is laid on while nothing is in flight. */
  inner: Store;
  readonly #host: ThreadHost;
  readonly #thread: () => number;
  readonly #blockBytes: number;
  readonly #counts: Int32Array<SharedArrayBuffer>;
  readonly #timer = createTimer();
  readonly #watch: Disposable;
  #held: Held[] = [];
  #rules: readonly FaultRule[] = [];
  #seed = 0;
  /** Undefined until the first choice. */
  #random: number | undefined;

  private constructor(inner: Store, host: ThreadHost, setup: FaultySetup, thread: () => number) {
    this.inner = inner;
    this.#host = host;
    this.#thread = thread;
    this.#blockBytes = setup.blockBytes;
    this.#counts = new Int32Array(setup.counts);
    this.#watch = host.watch(this.#timer.number, "readable", () => {
      drainEventfd(this.#timer.number);
      this.#release(performance.now());
    });
    if (inner.secureErase !== undefined) {
      this.secureErase = (request) => this.#ask(ERASE, request, false);
    }
    this.lifetime = inner.lifetime?.bind(inner);
    this.set(setup.plan);
  }

  /**
   * Attaches a faulty store.
   *
   * @param thread Returns a number that other threads of the disk do not have; once there are
   * requests.
   */
  static async attach(
    attach: (host: ThreadHost) => Promise<Store>,
    host: ThreadHost,
    setup: FaultySetup,
    thread: () => number,
  ): Promise<FaultyStore> {
    const inner = await attach({
      ...host,
      done(request, result) {
        if (!(request instanceof Beginning)) return host.done(request, result);
        host.done(request.whole, result || request.outcome);
      },
    });
    return new FaultyStore(inner, host, setup, thread);
  }

  /** Puts a plan in force; what was held goes to the store. */
  set({ rules, seed }: FaultPlan): void {
    this.#rules = rules;
    this.#seed = seed;
    this.#random = undefined;
    this.#release(Infinity);
  }

  read(request: StoreRequest): StoreResult {
    return this.#ask(READ, request, false);
  }

  write(request: StoreRequest): StoreResult {
    return this.#ask(WRITE, request, false);
  }

  flush(request: StoreRequest): StoreResult {
    return this.#ask(FLUSH, request, false);
  }

  discard(request: StoreRequest): StoreResult {
    return this.#ask(DISCARD, request, false);
  }

  writeZeroes(request: StoreRequest, unmap: boolean): StoreResult {
    return this.#ask(ZEROES, request, unmap);
  }

  submit(): void {
    this.inner.submit?.();
  }

  cancel(): void {
    this.inner.cancel?.();
  }

  close(): void {
    this.#watch[Symbol.dispose]();
    this.#timer.close();
    this.inner.close?.();
  }

  #ask(kind: number, request: StoreRequest, unmap: boolean): StoreResult {
    const rule = this.#choose(kind, request);
    if (rule === undefined) return this.#perform(kind, request, unmap);
    Atomics.add(this.#counts, FAULTS.indexOf(rule.fault), 1);
    switch (rule.fault) {
      case "error":
        return rule.errno;
      case "short":
        return this.#begin(kind, request, rule.errno);
      case "torn":
        return this.#begin(kind, request, 0);
      case "stuck":
        return this.#hold({ kind, request, unmap, at: Infinity });
      case "delay": {
        const { leastMs, mostMs } = rule;
        const ms = leastMs + (mostMs - leastMs) * this.#next() / RANDOM_RANGE;
        return this.#hold({ kind, request, unmap, at: performance.now() + ms });
      }
    }
  }

  /** The first rule that applies to a request. */
  #choose(kind: number, { offset, bytes }: StoreRequest): FaultRule | undefined {
    const rules = this.#rules;
    for (let i = 0; i < rules.length; i++) {
      const rule = rules[i];
      if ((rule.requests & 1 << kind) === 0) continue;
      if (kind !== FLUSH && (offset >= rule.to || offset + bytes <= rule.from)) continue;
      if (rule.part === 1 || this.#next() < rule.part * RANDOM_RANGE) return rule;
    }
    return undefined;
  }

  /** Carries out only the first blocks of a request. */
  #begin(kind: number, request: StoreRequest, outcome: number): StoreResult {
    const blocks = Math.floor(this.#next() / RANDOM_RANGE * request.bytes / this.#blockBytes);
    if (blocks === 0) return outcome;
    const result = this.#perform(
      kind,
      new Beginning(request, blocks * this.#blockBytes, outcome),
      false,
    );
    return result === 0 ? outcome : result;
  }

  #perform(kind: number, request: StoreRequest, unmap: boolean): StoreResult {
    const result = this.#call(kind, request, unmap);
    if (typeof result === "number") return result;
    const done = (outcome: number) => {
      const isBeginning = request instanceof Beginning;
      this.#host.done(
        isBeginning ? request.whole : request,
        outcome || (isBeginning ? request.outcome : 0),
      );
      this.#host.flush();
    };
    void this.#host.keep(result.then(done, (error) => done(errnoOf(error))));
    return LATER;
  }

  #call(kind: number, request: StoreRequest, unmap: boolean): StoreResult {
    const inner = this.inner;
    switch (kind) {
      case READ:
        return inner.read(request);
      case WRITE:
        return inner.write(request);
      case FLUSH:
        return inner.flush(request);
      case DISCARD:
        return inner.discard(request);
      case ERASE:
        return inner.secureErase?.(request) ?? Errno.EOPNOTSUPP;
      default:
        return inner.writeZeroes(request, unmap);
    }
  }

  #hold(held: Held): number {
    this.#held.push(held);
    Atomics.add(this.#counts, FAULTS.length, 1);
    this.#arm();
    return LATER;
  }

  #arm(): void {
    const next = this.#held.reduce((least, { at }) => Math.min(least, at), Infinity);
    if (next === Infinity) return;
    setTimer(this.#timer.number, Math.max(0, Math.round((next - performance.now()) * 1000)));
  }

  /** Gives the store what was held until `now`. */
  #release(now: number): void {
    const due = this.#held.filter(({ at }) => at <= now);
    if (due.length === 0) return this.#arm();
    this.#held = this.#held.filter(({ at }) => at > now);
    Atomics.sub(this.#counts, FAULTS.length, due.length);
    for (const { kind, request, unmap } of due) {
      const result = this.#perform(kind, request, unmap);
      if (result !== LATER) this.#host.done(request, result as number);
    }
    this.inner.submit?.();
    this.#host.flush();
    this.#arm();
  }

  /** A random number; the generator is splitmix32. */
  #next(): number {
    this.#random ??= this.#seed + Math.imul(this.#thread() + 1, 0x85eb_ca6b) | 0;
    let z = this.#random = this.#random + 0x9e37_79b9 | 0;
    z = Math.imul(z ^ z >>> 16, 0x85eb_ca6b);
    z = Math.imul(z ^ z >>> 13, 0xc2b2_ae35);
    return (z ^ z >>> 16) >>> 2;
  }
}
