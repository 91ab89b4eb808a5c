/**
 * The chains of a queue that promises of its handler complete.
 *
 * @module
 */

import type { Chain } from "../../virtqueue/mod.ts";
import type { QueueOwner } from "./engine_host.ts";

/** What the queue does when a promise settles. */
export interface PromisedQueue {
  complete(chain: Chain, written: number): void;
  /** Its promise was rejected, or fulfilled with a wrong number. */
  refuse(chain: Chain, error: unknown, isCurrent: boolean): void;
  /** Called once after promises that settled together. */
  settled(): void;
}

/** The reactions to the promises of a chain. */
interface Reactions {
  fulfilled(written: number): void;
  rejected(error: unknown): void;
}

const RESOLVED = Promise.resolve();

/** Pending promises. Each takes one further promise: the reactions are made once per chain. */
export class PromisedChains {
  readonly #owner: QueueOwner;
  readonly #queue: PromisedQueue;
  /** By slot, of the present start of the ring. */
  #reactions: Reactions[] = [];
  #isAnnounced = false;
  readonly #announce = () => {
    this.#isAnnounced = false;
    this.#queue.settled();
  };
  /** How many promises of this start have not settled. */
  pending = 0;

  constructor(owner: QueueOwner, queue: PromisedQueue) {
    this.#owner = owner;
    this.#queue = queue;
  }

  /** The ring starts: its chains are new ones. */
  restart(): void {
    this.#reactions = [];
    this.pending = 0;
  }

  /** A promise will complete a chain. */
  add(chain: Chain, promise: Promise<number>): void {
    this.pending++;
    this.#owner.began();
    const reactions = this.#reactions[chain.slot] ??= this.#makeReactions(chain);
    Promise.resolve(promise).then(reactions.fulfilled, reactions.rejected);
  }

  #makeReactions(chain: Chain): Reactions {
    const owner = this.#owner, queue = this.#queue, start = this.#reactions;
    const isCurrent = () => this.#reactions === start;
    const ended = () => {
      owner.late.returned(chain);
      owner.settled();
      if (isCurrent()) this.pending--;
      if (this.#isAnnounced) return;
      this.#isAnnounced = true;
      // Behind the reactions of what settled with this one
      void RESOLVED.then(this.#announce);
    };
    return {
      fulfilled(written) {
        try {
          queue.complete(chain, written);
        } catch (error) {
          queue.refuse(chain, error, isCurrent());
        }
        ended();
      },
      rejected(error) {
        queue.refuse(chain, error, isCurrent());
        ended();
      },
    };
  }
}
