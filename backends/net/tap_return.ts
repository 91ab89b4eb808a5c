/**
 * Joins a TAP again that was deleted and is back.
 *
 * @module
 */

import {
  attachTapQueue,
  createEventfd,
  drainEventfd,
  type Fd,
  NetworkInterface,
  openTap,
  signalEventfd,
  watch,
} from "../../src/linux/mod.ts";
import { HEADER_BYTES } from "./packet.ts";

/** The pause between two looks for the interface: at first, and at most. */
const FIRST_PAUSE_MS = 250, MOST_PAUSE_MS = 8000;

/**
 * The control half's side: a port that finds its TAP gone signals `lost`, and each port gets a signal
 * of its own once its descriptor is one of the new interface.
 */
export class TapReturn implements Disposable {
  readonly lost: Fd = createEventfd();
  readonly back: Fd[];
  readonly #name: string;
  readonly #queues: readonly Fd[];
  readonly #configure: (fd: number) => void;
  readonly #log: (message: string) => void;
  readonly #watch: Disposable;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param queues The descriptor of each queue; they keep their numbers.
   * @param configure Sets the new interface up, of which it gets a descriptor.
   */
  constructor(
    name: string,
    queues: readonly Fd[],
    configure: (fd: number) => void,
    log: (message: string) => void,
  ) {
    this.#name = name;
    this.#queues = queues;
    this.#configure = configure;
    this.#log = log;
    this.back = queues.map(() => createEventfd());
    this.#watch = watch(this.lost.number, "readable", () => {
      drainEventfd(this.lost.number);
      if (this.#timer === undefined) this.#retryIn(FIRST_PAUSE_MS);
    });
  }

  #retryIn(pauseMs: number, hasSaid = false): void {
    this.#timer = setTimeout(() => {
      try {
        if (this.#rejoin()) {
          this.#timer = undefined;
          this.#log(`The TAP ${this.#name} is back, and joined again`);
          return;
        }
      } catch (error) {
        const { message } = error as Error;
        if (!hasSaid) this.#log(`The TAP ${this.#name} is back, but cannot be joined: ${message}`);
        hasSaid = true;
      }
      this.#retryIn(Math.min(pauseMs * 2, MOST_PAUSE_MS), hasSaid);
    }, pauseMs);
  }

  /** Joins the interface, if there is one. */
  #rejoin(): boolean {
    using found = new NetworkInterface(this.#name);
    if (found.index === undefined) return false;
    const isMultiQueue = this.#queues.length > 1;
    using opened = new DisposableStack();
    const queues = this.#queues.map(() =>
      opened.use(openTap(this.#name, HEADER_BYTES, isMultiQueue))
    );
    if (isMultiQueue) { for (const { number } of queues) attachTapQueue(number, false); }
    this.#configure(queues[0].number);
    queues.forEach((queue, pair) => this.#queues[pair].become(queue));
    for (const { number } of this.back) signalEventfd(number);
    return true;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#watch[Symbol.dispose]();
    for (const fd of [this.lost, ...this.back]) fd.close();
  }
}
