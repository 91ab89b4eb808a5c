/**
 * An engine on the thread of the control plane.
 *
 * @module
 */

import { watch, watchSignals } from "../linux/mod.ts";
import { Signaller } from "../linux/wait/signaller.ts";
import { type MemoryHandle, type SpanView, viewMemory } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type { Transport } from "./engine.ts";
import type { EngineCommand, EngineEvent, EngineSetup } from "./data_plane/messages.ts";
import { Poller } from "./data_plane/poller.ts";
import { QueueEngine } from "./data_plane/queue_engine.ts";

/** Runs an engine on this thread, for devices that need no thread of their own. */
export class LocalTransport implements Transport {
  readonly ready: Promise<void>;
  readonly #signaller = new Signaller();
  readonly #memory: SpanView;
  readonly #engine: QueueEngine;

  /** Makes the device's data half here. */
  constructor(
    device: AnyDevice,
    setup: EngineSetup,
    memory: MemoryHandle,
    emit: (event: EngineEvent) => void,
  ) {
    this.#memory = viewMemory(memory);
    this.#engine = new QueueEngine(device, setup, this.#memory, {
      poller: new Poller(0, setup.polling, 1),
      watch,
      watchSignals,
      signal: (fd) => this.#signaller.signal(fd),
      defer: (callback) => void setTimeout(callback, 0),
      emit,
    });
    this.ready = this.#engine.ready;
  }

  async call(command: EngineCommand): Promise<unknown> {
    await this.ready;
    // The control plane allocates on this thread, also while there is no guest.
    if (command.kind === "memory" && command.regions.length === 0) this.#memory.release();
    return await new Promise((resolve, reject) => this.#engine.execute(command, resolve, reject));
  }

  async close(): Promise<void> {
    await this.call({ kind: "close" });
    this.#signaller[Symbol.dispose]();
  }
}
