import type { Fd } from "../linux/mod.ts";
import type { VringAddress } from "../vhost_user/mod.ts";
import type { QueueCounters } from "./counters.ts";
import type { Engine } from "./engine.ts";

/**
 * A queue and its ring on the control plane: the session sets it up from the front-end's messages,
 * the record reads it. It lives as long as the device.
 */
export class Ring {
  /** The index that the driver knows it by. */
  readonly index: number;
  /** The name in the device's definition. */
  readonly name: string;
  /** The most descriptors that the driver may give it. */
  readonly maxSize: number;
  readonly counters: QueueCounters;
  readonly #engine: () => Engine;
  /** The size that the driver chose; 0 before it did. */
  size = 0;
  /** The index to resume at; undefined until the front-end sets it or the ring has run. */
  base: number | undefined;
  address: VringAddress | undefined;
  kick: Fd | undefined;
  call: Fd | undefined;
  err: Fd | undefined;
  /** SET_VRING_KICK came: with a descriptor, or to say that there is none. */
  started = false;
  enabled = false;
  running = false;
  /** A fault broke it since its last start. */
  broken = false;
  /** How often it was started. */
  starts = 0;
  /** Requests in flight are recorded in memory of the front-end. */
  tracked = false;
  /** It was in use before its last start. */
  resumed = false;
  /** How many requests were submitted again, in all starts. */
  resubmitted = 0;

  /** @param engine Returns the engine that runs the queue. */
  constructor(
    { index, name, maxSize, counters }: Pick<Ring, "index" | "name" | "maxSize" | "counters">,
    engine: () => Engine,
  ) {
    this.index = index;
    this.name = name;
    this.maxSize = maxSize;
    this.counters = counters;
    this.#engine = engine;
  }

  /**
   * The engine that runs the queue.
   *
   * @throws {Error} When its thread could not be started.
   */
  get engine(): Engine {
    return this.#engine();
  }

  /** Forgets what the last front-end set up; the ring is stopped and its descriptors are closed. */
  clear(): void {
    this.size = 0;
    this.base =
      this.address =
      this.kick =
      this.call =
      this.err =
        undefined;
    this.started = this.enabled = false;
  }
}
