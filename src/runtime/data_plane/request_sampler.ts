/**
 * Measures a sample of the requests of one engine: their latencies always, and all their times while
 * they are traced.
 *
 * @module
 */

import { stampNanoseconds } from "../../linux/clock.ts";
import type { Chain } from "../../virtqueue/mod.ts";
import type { Latencies } from "../latency.ts";
import * as Span from "../trace/span.ts";
import type { SpanRing } from "../trace/span_ring.ts";

/** Without a trace, 1 in so many requests is measured, which costs about 2 ns per request. */
export const DEFAULT_EVERY = 128;

/** The most sampled requests in flight on a thread; further ones are not sampled. */
const MAX_OPEN = 1024;

/** Stands for no span. */
export const NONE = -1;

/** Samples the requests of the queues of an engine. It allocates nothing per request. */
export class RequestSampler {
  /** Requests until the next one that is sampled. */
  left = 1;
  readonly #latencies: Latencies;
  #every = DEFAULT_EVERY;
  #random = 0x2545_f491;
  /** Takes spans while they are traced. */
  #ring: SpanRing | null = null;
  /** By place; a free one has {@linkcode NONE} as its queue. */
  readonly #spans = new Float64Array(MAX_OPEN * Span.FLOATS).fill(NONE);
  /** The chain of a span until it is completed, or, in order, until earlier ones are. */
  readonly #chains: (Chain | null)[] = new Array(MAX_OPEN).fill(null);
  /** Of a free span the next free one; of a completed one the next of its queue. */
  readonly #next = Int32Array.from({ length: MAX_OPEN }, (_, i) => i + 1 < MAX_OPEN ? i + 1 : NONE);
  #free = 0;
  /** When each queue's current turn was kicked, by the queue's index. */
  readonly #kicks = new Float64Array(256);
  /** The times of publication and notification, which spans share. */
  readonly #published = new Float64Array(2);

  /** Begins with the default sample. */
  constructor(latencies: Latencies) {
    this.#latencies = latencies;
  }

  /** Samples 1 in `every` requests, and gives their spans to a ring, or to none. */
  trace(ring: SpanRing | null, every: number): void {
    this.#ring = ring;
    this.#every = every;
    this.left = 1;
    this.#kicks.fill(0);
  }

  /** A queue was kicked: its turn begins. */
  kicked(queue: number): void {
    if (this.#ring !== null) stampNanoseconds(this.#kicks, queue);
  }

  /** The turn that a kick began is over. */
  turned(queue: number): void {
    this.#kicks[queue] = 0;
  }

  /** Begins the span of a chain, when {@linkcode RequestSampler.left} is 0. */
  take(chain: Chain, queue: number): void {
    this.#reload();
    const place = this.#free;
    if (place === NONE) {
      this.#ring?.lose();
      return;
    }
    this.#free = this.#next[place];
    const spans = this.#spans, at = place * Span.FLOATS;
    spans[at + Span.KICK] = this.#kicks[queue];
    stampNanoseconds(spans, at + Span.TAKE);
    spans[at + Span.SUBMIT] = spans[at + Span.COMPLETE] = 0;
    spans[at + Span.QUEUE_KIND] = queue;
    spans[at + Span.BYTES] = chain.readableBytes + chain.writableBytes;
    this.#chains[place] = chain;
    chain.span = place;
  }

  /** Chooses the next request; randomly, as requests may come in a rhythm. */
  #reload(): void {
    this.#random = Math.imul(this.#random, 1_664_525) + 1_013_904_223 | 0;
    const every = this.#every;
    // The mean of 1 to 2 * every - 1
    this.left = 1 + (this.#random >>> 8) % (2 * every - 1);
  }

  /** The handler has returned. */
  submitted(place: number): void {
    const at = place * Span.FLOATS + Span.SUBMIT;
    if (this.#ring !== null && this.#spans[at] === 0) stampNanoseconds(this.#spans, at);
  }

  /**
   * The device has completed a request.
   *
   * @param last The last completed span of its queue that was not published, or none.
   * @returns Its own.
   */
  completed(place: number, kind: number, last: number): number {
    const at = place * Span.FLOATS, spans = this.#spans;
    if (this.#ring !== null) stampNanoseconds(spans, at + Span.COMPLETE);
    if (spans[at + Span.SUBMIT] === 0) spans[at + Span.SUBMIT] = spans[at + Span.COMPLETE];
    spans[at + Span.QUEUE_KIND] += kind * 256;
    this.#next[place] = last;
    // Its object is soon another chain's.
    if (this.#chains[place]!.held < 0) this.#letGo(place);
    return place;
  }

  /** Completions of a queue were published. */
  published(): void {
    stampNanoseconds(this.#published, 0);
  }

  /**
   * Ends the completed spans of a queue, after the driver was notified of them if it wanted that.
   *
   * @returns The last of those whose chains wait for earlier ones (VIRTIO_F_IN_ORDER), or none.
   */
  end(queue: number, last: number, isNotified: boolean): number {
    const spans = this.#spans, ring = this.#ring, published = this.#published;
    published[1] = 0;
    if (isNotified && ring !== null) stampNanoseconds(published, 1);
    let waiting = NONE;
    for (let place = last; place !== NONE;) {
      const next = this.#next[place];
      const chain = this.#chains[place];
      if (chain !== null && chain.span === place && chain.held >= 0) {
        this.#next[place] = waiting;
        waiting = place;
      } else {
        const at = place * Span.FLOATS;
        spans[at + Span.PUBLISH] = published[0];
        spans[at + Span.NOTIFY] = published[1];
        const kind = (spans[at + Span.QUEUE_KIND] - queue) / 256;
        this.#latencies.add(queue, kind, published[0] - spans[at + Span.TAKE]);
        // A span that began before the trace did has no other times.
        if (ring !== null && spans[at + Span.COMPLETE] > 0) ring.add(spans, at);
        this.forget(place);
      }
      place = next;
    }
    return waiting;
  }

  /** Forgets a span. */
  forget(place: number): void {
    this.#letGo(place);
    this.#spans[place * Span.FLOATS + Span.QUEUE_KIND] = NONE;
    this.#next[place] = this.#free;
    this.#free = place;
  }

  #letGo(place: number): void {
    const chain = this.#chains[place];
    if (chain !== null && chain.span === place) chain.span = NONE;
    this.#chains[place] = null;
  }

  /** Forgets all spans of a queue. */
  forgetQueue(queue: number): void {
    for (let place = 0; place < MAX_OPEN; place++) {
      if (this.#spans[place * Span.FLOATS + Span.QUEUE_KIND] % 256 === queue) this.forget(place);
    }
  }
}
