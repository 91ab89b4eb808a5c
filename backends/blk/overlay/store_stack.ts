/**
 * A queue thread's store, on which overlays can be laid while the disk runs.
 *
 * @module
 */

import type { QueueHandle } from "../../../mod.ts";
import type { FaultPlan } from "../faults/fault_plan.ts";
import { type FaultySetup, FaultyStore } from "../faults/faulty_store.ts";
import type { Operation } from "../operation.ts";
import type { OverlayHandle, Store, StoreRequest, ThreadHost } from "../store.ts";
import { attachStore } from "../stores.ts";
import type { SnapshotStep } from "./snapshot.ts";

/** Where a store tells its results: to the disk, or to the overlay that was laid on it. */
interface Listener {
  done(request: StoreRequest, result: number): void;
}

/** What has a disk fail on purpose; see {@linkcode FaultyStore.attach}. */
interface Faults {
  readonly setup: FaultySetup;
  thread(): number;
}

/** The store of a thread: the one that it attached to, the overlays on it, and faults above all. */
export class StoreStack {
  /** What carries requests out. */
  store!: Store;
  /** The uppermost one, to which `store` leads, and where it tells its results. */
  #top!: Store;
  #host!: ThreadHost;
  #listener!: Listener;
  #faulty: FaultyStore | undefined;
  /** An overlay that is attached, and not laid yet. */
  #next: { readonly store: Store & Listener; readonly listener: Listener } | undefined;

  private constructor() {}

  /** Attaches to a store. */
  static async attach(
    host: ThreadHost,
    attach: (host: ThreadHost) => Promise<Store>,
    faults?: Faults,
  ): Promise<StoreStack> {
    const stack = new StoreStack();
    const attachTop = async (host: ThreadHost) => {
      stack.#host = host;
      stack.#listener = { done: host.done };
      return stack.#top = await attach(stack.#telling(stack.#listener));
    };
    stack.store = faults === undefined
      ? await attachTop(host)
      : stack.#faulty = await FaultyStore.attach(attachTop, host, faults.setup, faults.thread);
    return stack;
  }

  /** Replaces the faults of a disk that was opened with some. */
  setFaults(plan: FaultPlan): void {
    this.#faulty!.set(plan);
  }

  /** Whether a message is a step of a snapshot. */
  static isStep(message: unknown): message is SnapshotStep {
    return typeof message === "object" && message !== null && "snapshot" in message;
  }

  /** Carries out a step of a snapshot. */
  step(
    step: SnapshotStep,
    operation: Operation,
    queues: readonly QueueHandle[],
  ): void | Promise<void> {
    operation.isPaused = step.snapshot !== "resume";
    switch (step.snapshot) {
      case "prepare":
        return this.#prepare(step.handle);
      case "lay":
        this.#lay();
        return operation.replaceStore(this.store);
      case "resume":
        this.#next = undefined;
        for (const queue of queues) queue.resume();
    }
  }

  #telling(listener: Listener): ThreadHost {
    return { ...this.#host, done: (request, result) => listener.done(request, result) };
  }

  /** Attaches to the file of an overlay over the uppermost store. */
  async #prepare(handle: OverlayHandle): Promise<void> {
    const { attachOver } = await import("./overlay_store.ts");
    const listener: Listener = { done: this.#host.done };
    const store = await attachOver(
      handle,
      this.#telling(listener),
      attachStore,
      () => Promise.resolve(this.#top),
    );
    this.#next = { store, listener };
  }

  /** Lays the overlay that was prepared; nothing may be in flight. */
  #lay(): void {
    const { store, listener } = this.#next!;
    this.#listener.done = (request, result) => store.done(request, result);
    this.#listener = listener;
    this.#top = store;
    if (this.#faulty === undefined) this.store = store;
    else this.#faulty.inner = store;
    this.#next = undefined;
  }
}
