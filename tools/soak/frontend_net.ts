/** Our network card on a stream, under a driver of ours: its peer sends every packet back. */
import { withTimeout } from "../lib/process.ts";
import { mix } from "../lib/random.ts";
import { StreamPeer } from "../lib/stream_peer.ts";
import { ToolError } from "../lib/tool_error.ts";
import { sleep, type World } from "./actor.ts";
import { DISTURBANCES, ReceivingActor, REQUEST_TIMEOUT_MS } from "./served.ts";

const HEADER_BYTES = 12;
const LEAST_FRAME_BYTES = 60, MAX_FRAME_BYTES = 1514;
/** Offset of the packet's number, after the Ethernet header. */
const NUMBER_AT = 14;
/** The most packets that are sent at once; twice as many buffers wait for them. */
const MAX_BURST = 32;
const PROBE_MS = 20, MAX_PEACE_MS = 300;
const FAULTS = [...DISTURBANCES, "stream cut", "impaired"] as const;
const IMPAIRMENT = { delay: "5ms", loss: "20%", duplicate: "20%", reorder: "20%" };

/** The frame of a packet: its size and its content follow from its number. */
function frameOf(number: number): Uint8Array<ArrayBuffer> {
  const bytes = LEAST_FRAME_BYTES + mix(number) % (MAX_FRAME_BYTES - LEAST_FRAME_BYTES + 1);
  const frame = Uint8Array.from({ length: bytes }, (_, i) => mix(number ^ i << 16));
  new DataView(frame.buffer).setUint32(NUMBER_AT, number);
  return frame;
}

export class FrontendNet extends ReceivingActor {
  readonly #listener: Deno.UnixListener;
  #peer: StreamPeer | undefined;
  #next = 0;
  #came = (_number: number) => {};

  constructor(world: World) {
    const path = `${world.directory}/net-peer.sock`;
    const buffers = { count: 2 * MAX_BURST, bytes: HEADER_BYTES + MAX_FRAME_BYTES };
    super(world, "net", [`--stream=${path}`], buffers, { queues: [2 * MAX_BURST, 2 * MAX_BURST] });
    this.#listener = Deno.listen({ transport: "unix", path });
  }

  async run(): Promise<void> {
    await this.receiveDuring(this.#sendBack(), this.#exchange());
  }

  async #exchange(): Promise<void> {
    const { random, world: { over } } = this;
    while (!over.aborted) {
      await sleep(random.between(1, MAX_PEACE_MS), over);
      const fault = random.pick(FAULTS);
      // Packets may be lost meanwhile; those that come are right.
      await Promise.all([this.#spoil(fault), this.#send(random.between(1, MAX_BURST))]);
      const late = () => `packets do not return after: ${fault}`;
      await withTimeout(this.#untilOneReturns(), REQUEST_TIMEOUT_MS, late);
      await withTimeout(this.#expectAll(random.between(1, MAX_BURST)), REQUEST_TIMEOUT_MS, late);
    }
  }

  async #spoil(fault: typeof FAULTS[number]): Promise<void> {
    if (fault !== "impaired" && fault !== "stream cut") return await this.disturb(fault);
    this.world.fault(this.tally, fault);
    if (fault === "stream cut") return this.#peer?.[Symbol.dispose]();
    await this.backend.now.post("impair", IMPAIRMENT);
    await this.#send(MAX_BURST);
    await this.backend.now.post("impair", {});
  }

  async #send(count: number): Promise<void> {
    await Promise.all(Array.from({ length: count }, async () => {
      const frame = frameOf(this.#next++);
      await this.ready();
      await this.driver.request(1, [new Uint8Array(HEADER_BYTES), frame], []);
    }));
  }

  async #untilOneReturns(): Promise<void> {
    const first = this.#next;
    let hasReturned = false;
    this.#came = (number) => hasReturned ||= number >= first;
    while (!hasReturned) {
      await this.#send(1);
      await new Promise((resolve) => setTimeout(resolve, PROBE_MS));
    }
  }

  /** Sends packets, each of which must return once and in order. */
  async #expectAll(count: number): Promise<void> {
    const first = this.#next;
    let next = first;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#came = (number) => {
      if (number < first) return; // sent before
      if (number !== next++) reject(new ToolError(`packet ${number} came for ${next - 1}`));
      if (next === first + count) resolve();
    };
    await Promise.all([promise, this.#send(count)]);
  }

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    this.#came(this.#check(bytes.subarray(HEADER_BYTES)));
  }

  /** Returns the number of a frame, every byte of which is right. */
  #check(frame: Uint8Array<ArrayBuffer>): number {
    const number = Number(`0x${frame.subarray(NUMBER_AT, NUMBER_AT + 4).toHex() || 0}`);
    if (frame.toHex() !== frameOf(number).toHex()) {
      throw new ToolError(`a frame of ${frame.length} bytes is not packet ${number}`);
    }
    this.tally.checkedBytes += frame.length;
    return number;
  }

  /** The other end of the stream, for one connection after the other. */
  async #sendBack(): Promise<void> {
    for await (const connection of this.#listener) {
      using peer = this.#peer = new StreamPeer(connection);
      try {
        for (let frame = await peer.receive(); frame; frame = await peer.receive()) {
          this.#check(frame);
          await peer.send(frame);
        }
      } catch (error) {
        if (error instanceof ToolError) throw error; // else it was cut
      }
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await super[Symbol.asyncDispose]();
  }
}
