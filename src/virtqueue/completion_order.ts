/**
 * In-order use of buffers: virtio 1.3, 2.7.9 and 2.8.8.
 *
 * @module
 */

import type { Chain } from "./chain.ts";

/**
 * The order in which chains were taken, for rings whose driver negotiated VIRTIO_F_IN_ORDER: a
 * completion is held back until all before it are done. It allocates nothing after it was made.
 */
export class CompletionOrder {
  /** Chains that are not used yet, from `#oldest` on. */
  readonly #chains: (Chain | undefined)[];
  #oldest = 0;
  #count = 0;

  /** Makes an order of at most `size` chains. */
  constructor(size: number) {
    this.#chains = new Array(size).fill(undefined);
  }

  /** Notes that a chain was taken. */
  taken(chain: Chain): void {
    const size = this.#chains.length;
    const at = this.#oldest + this.#count++;
    this.#chains[at < size ? at : at - size] = chain;
  }

  /** Removes the newest chain. */
  untaken(): void {
    this.#count--;
  }

  /** Removes the oldest chain if it is complete; its `held` is the number of bytes written. */
  next(): Chain | null {
    if (this.#count === 0) return null;
    const chain = this.#chains[this.#oldest]!;
    if (chain.held < 0) return null;
    this.#count--;
    if (++this.#oldest === this.#chains.length) this.#oldest = 0;
    return chain;
  }
}
