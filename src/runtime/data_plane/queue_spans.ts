/**
 * The spans of the sampled requests of one queue.
 *
 * @module
 */

import type { QueueHandle } from "../../virtio/mod.ts";
import type { Chain } from "../../virtqueue/mod.ts";
import { kindsOf } from "../latency.ts";
import type { QueueOwner } from "./engine_host.ts";
import { NONE, type RequestSampler } from "./request_sampler.ts";

/** Tells the sampler of an engine what happens to the chains of a queue. */
export class QueueSpans {
  readonly #sampler: RequestSampler;
  readonly #owner: QueueOwner;
  readonly #queue: QueueHandle;
  readonly #kinds: number;
  /** The last completed span that is not published. */
  #last = NONE;

  /** Begins without spans. */
  constructor(owner: QueueOwner, queue: QueueHandle) {
    this.#sampler = owner.sampler;
    this.#owner = owner;
    this.#queue = queue;
    this.#kinds = kindsOf(owner.device.queues[queue.name]).length;
  }

  /** A ring starts: chains of its last start that were given up do not come back. */
  start(): void {
    this.#sampler.forgetQueue(this.#queue.index);
    this.#last = NONE;
  }

  /** A kick begins a turn of the queue. */
  kicked(): void {
    this.#sampler.kicked(this.#queue.index);
  }

  /** The turn that a kick began is over. */
  turned(): void {
    this.#sampler.turned(this.#queue.index);
  }

  /** The device gets a chain, which may be sampled. */
  taken(chain: Chain): void {
    chain.span = NONE;
    if (--this.#sampler.left === 0) this.#sampler.take(chain, this.#queue.index);
  }

  /** The device gave a chain back unused. */
  untaken(chain: Chain): void {
    if (chain.span !== NONE) this.#sampler.forget(chain.span);
  }

  /** The handler has returned. */
  submitted(chain: Chain): void {
    if (chain.span !== NONE) this.#sampler.submitted(chain.span);
  }

  /** The device completed a chain. */
  completed(chain: Chain): void {
    if (chain.span !== NONE) this.#complete(chain);
  }

  #complete(chain: Chain): void {
    const kind = this.#owner.half.kindOf?.(chain, this.#queue) ?? 0;
    const known = kind > 0 && kind < this.#kinds ? kind | 0 : 0;
    this.#last = this.#sampler.completed(chain.span, known, this.#last);
  }

  /** Completions were published. */
  published(): void {
    if (this.#last !== NONE) this.#sampler.published();
  }

  /** The driver was notified of what was published, if it wanted that. */
  end(isNotified: boolean): void {
    if (this.#last === NONE) return;
    this.#last = this.#sampler.end(this.#queue.index, this.#last, isNotified);
  }
}
