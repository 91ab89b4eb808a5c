/** Our source of randomness under a driver of ours. */
import { type Actor, sleep, type World } from "./actor.ts";
import { DISTURBANCES, Served } from "./served.ts";
import { Tally } from "./tally.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How many requests are made at a time. */
const LANES = 4;
const MAX_BYTES = 4096;
/** What is compared with all that came before. */
const SAMPLE_BYTES = 16;
/** How many samples are remembered. */
const MAX_SAMPLES = 100_000;
/** How long a lane rests after a request. */
const REST_MS = 4;

const LEAST_PEACE_MS = 1000;
const MAX_PEACE_MS = 5000;

/** Asks for bytes that nobody has seen before. */
export class FrontendRng implements Actor {
  readonly tally = new Tally("rng");
  readonly #world: World;
  readonly #made = new AsyncDisposableStack();
  readonly #seen = new Set<string>();
  #served!: Served;

  /** Nothing is started yet. */
  constructor(world: World) {
    this.#world = world;
  }

  async start(): Promise<void> {
    this.#served = this.#made.use(
      await Served.start(this.#world, this.tally, "rng", [], { packed: true }),
    );
  }

  async run(): Promise<void> {
    const { over } = this.#world;
    const served = this.#served;
    await Promise.race([
      Promise.all([
        ...Array.from({ length: LANES }, (_, lane) => this.#runLane(lane, served, over)),
        this.#disturb(served, over),
      ]),
      served.backend.failed,
    ]);
    await served.end();
  }

  async #runLane(lane: number, served: Served, over: AbortSignal): Promise<void> {
    const random = this.#world.random(`rng ${lane}`);
    while (!over.aborted) {
      const bytes = random.between(SAMPLE_BYTES, MAX_BYTES);
      await served.ready();
      const { written, data: [data] } = await served.driver.request(0, [], [bytes]);
      this.tally.requests++;
      if (written < 1 || written > bytes) {
        throw new ToolError(`rng wrote ${written} bytes where ${bytes} were asked for`);
      }
      this.#compare(data.subarray(0, written));
      await sleep(REST_MS, over);
    }
  }

  #compare(bytes: Uint8Array): void {
    for (let at = 0; at + SAMPLE_BYTES <= bytes.length; at += SAMPLE_BYTES) {
      const sample = bytes.subarray(at, at + SAMPLE_BYTES).toHex();
      if (this.#seen.has(sample)) throw new ToolError(`rng gave the same bytes twice: ${sample}`);
      if (this.#seen.size < MAX_SAMPLES) this.#seen.add(sample);
      this.tally.checkedBytes += SAMPLE_BYTES;
    }
  }

  async #disturb(served: Served, over: AbortSignal): Promise<void> {
    const random = this.#world.random("rng");
    for (;;) {
      await sleep(random.between(LEAST_PEACE_MS, MAX_PEACE_MS), over);
      if (over.aborted) return;
      await served.disturb(random.pick(DISTURBANCES));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#made.disposeAsync();
  }
}
