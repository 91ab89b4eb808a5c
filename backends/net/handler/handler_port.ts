/**
 * A port to a network in TypeScript.
 *
 * @module
 */

import { loadDefault, parseOptionList, type Parts } from "../../../mod.ts";
import { addressOf, pinnedBuffer } from "../../../src/linux/mod.ts";
import { Drop, FULL, HEADER_BYTES, MIN_FRAME_BYTES, SENT } from "../packet.ts";
import type { HandlerPlan, Network, Port, PortOwner } from "../port.ts";
import type { ReceiveWindow } from "../receive_window.ts";
import type { Answer, NetworkDefinition, NetworkPort } from "./define_network.ts";

/** How many frames wait for the driver's buffers. */
const MAX_QUEUED = 256;

/** The port of the only pair. */
export class HandlerPort implements Port {
  readonly isAsync = true;
  readonly #owner: PortOwner;
  /** The network's end. */
  readonly #end: NetworkPort;
  /** Undefined until it is open. */
  #network: NetworkDefinition | undefined;
  #hasFailed = false;
  /** Keeps the event loop running, for timers and I/O of the network. */
  readonly #closed = Promise.withResolvers<void>();
  /** The queued packets: a slot for each, with a header of zeros. */
  readonly #slots: Uint8Array<ArrayBuffer>;
  readonly #slotBytes: number;
  readonly #address: number;
  readonly #bytes = new Uint32Array(MAX_QUEUED);
  #first = 0;
  #count = 0;
  #isListening = false;
  /** A batch of the driver's packets is being sent: what they are answered follows its end. */
  #isInBatch = false;

  constructor(plan: HandlerPlan, owner: PortOwner) {
    const { mtu } = this.#owner = owner;
    this.#end = Object.freeze({
      options: plan.options as NetworkPort["options"],
      mtu,
      send: (frame: Uint8Array) => this.#queue(frame),
    });
    this.#slotBytes = HEADER_BYTES + 18 + mtu;
    this.#slots = new Uint8Array(pinnedBuffer(MAX_QUEUED * this.#slotBytes));
    this.#address = addressOf(this.#slots);
    addEventListener("error", this.#onStray);
    addEventListener("unhandledrejection", this.#onStray);
    void owner.keep(this.#open(plan.module));
  }

  async #open(module: string): Promise<void> {
    try {
      const network = (await loadDefault("network", module)).value as NetworkDefinition;
      if (network.open !== undefined) {
        void this.#owner.keep(this.#closed.promise);
        await network.open(this.#end);
      }
      this.#network = network;
    } catch (error) {
      this.#hasFailed = true;
      this.#tell("The network cannot begin", error);
    }
    this.#owner.writable();
  }

  /** Takes an error that the network throws between packets, which would end the thread. */
  readonly #onStray = (event: ErrorEvent | PromiseRejectionEvent) => {
    event.preventDefault();
    this.#tell("The network failed", "reason" in event ? event.reason : event.error);
  };

  #tell(what: string, error: unknown): void {
    const why = error instanceof Error ? `${error.name}: ${error.message}` : Deno.inspect(error);
    this.#owner.notice({ what, why });
  }

  send(packet: Parts): number | Promise<number> {
    const network = this.#network;
    if (network === undefined) return this.#hasFailed ? Drop.HANDLER : FULL;
    this.#isInBatch = true;
    try {
      const answer = network.packet(packet.contiguous(HEADER_BYTES), this.#end);
      if (answer instanceof Promise) {
        return answer.then((answer) => this.#answer(answer)).catch((error) => this.#failed(error));
      }
      return this.#answer(answer);
    } catch (error) {
      return this.#failed(error);
    }
  }

  #answer(answer: Answer): number {
    if (answer === undefined) return SENT;
    if (answer instanceof Uint8Array) this.#queue(answer);
    else for (const frame of answer) this.#queue(frame);
    return SENT;
  }

  #failed(error: unknown): number {
    this.#tell("The network failed on a packet", error);
    return Drop.HANDLER;
  }

  flush(): void {
    this.#isInBatch = false;
    this.#deliver();
  }

  /** Queues a frame for the driver; returns whether it did. */
  #queue(frame: Uint8Array): boolean {
    if (!(frame instanceof Uint8Array)) {
      throw new TypeError(`Expected a frame as a Uint8Array, got ${Deno.inspect(frame)}`);
    }
    const bytes = HEADER_BYTES + frame.length;
    if (frame.length < MIN_FRAME_BYTES || bytes > this.#slotBytes) {
      this.#owner.dropped(frame.length < MIN_FRAME_BYTES ? Drop.TINY : Drop.OVERSIZE);
      return false;
    }
    if (this.#count === MAX_QUEUED) this.#deliver();
    if (this.#count === MAX_QUEUED) {
      this.#owner.dropped(Drop.QUEUE);
      return false;
    }
    const slot = (this.#first + this.#count++) % MAX_QUEUED;
    this.#slots.set(frame, slot * this.#slotBytes + HEADER_BYTES);
    this.#bytes[slot] = bytes;
    if (!this.#isInBatch) this.#deliver();
    return true;
  }

  /** Moves queued frames to the driver, as far as it has buffers. */
  #deliver(): void {
    // Each round makes the queue shorter, or ends the listening.
    while (this.#isListening && this.#count > 0) this.#owner.readable();
  }

  receive(window: ReceiveWindow): number {
    if (this.#count === 0) return 0;
    const slot = this.#first;
    const bytes = this.#bytes[slot];
    window.rewind();
    window.write(this.#address + slot * this.#slotBytes, bytes);
    this.#first = (slot + 1) % MAX_QUEUED;
    this.#count--;
    return bytes;
  }

  listen(isListening: boolean): void {
    this.#isListening = isListening;
    // The driver gave many buffers, and the pair received a batch.
    if (isListening && this.#count > 0) {
      void this.#owner.keep(Promise.resolve().then(() => this.#deliver()));
    }
  }

  report(): Record<string, unknown> | undefined {
    return this.#network?.report?.();
  }

  [Symbol.dispose](): void {
    removeEventListener("error", this.#onStray);
    removeEventListener("unhandledrejection", this.#onStray);
    this.#closed.resolve();
    this.#network?.close?.(this.#end);
  }
}

/**
 * Loads the network that the user named, to learn its options.
 *
 * @throws {Error} When it cannot be loaded, or is none.
 * @throws {OptionError} When it does not take the options.
 */
export async function openHandlerNetwork(
  handler: string,
  { handlerOptions = "", mtu = 1500 }: { handlerOptions?: string; mtu?: number },
): Promise<Network> {
  const { url, value } = await loadDefault("network", handler);
  const network = value as Partial<NetworkDefinition> | undefined;
  if (typeof network?.packet !== "function") {
    throw new Error(
      `Expected a network as the default export of ${handler}; ` +
        "write export default defineNetwork({ packet(frame, port) { … } })",
    );
  }
  const options = parseOptionList(
    "handler-options",
    handler,
    network.options ?? {},
    handlerOptions,
  );
  return {
    plan: { kind: "handler", module: url, options },
    offloads: [],
    mtu,
    report: () => ({ port: `handler ${handler}` }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
