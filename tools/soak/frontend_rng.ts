/** Our source of randomness under a driver of ours. */
import { ToolError } from "../lib/tool_error.ts";
import { sleep, type World } from "./actor.ts";
import { ServedActor } from "./served.ts";

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

/** Asks for random bytes, and expects that they never come twice. */
export class FrontendRng extends ServedActor {
  readonly #seen = new Set<string>();

  constructor(world: World) {
    super(world, "rng", "rng", [], { packed: true });
  }

  async run(): Promise<void> {
    await Promise.race([
      Promise.all([
        ...Array.from({ length: LANES }, (_, lane) => this.#runLane(lane)),
        this.disturbOften(LEAST_PEACE_MS, MAX_PEACE_MS),
      ]),
      this.backend.failed,
    ]);
    await this.end();
  }

  async #runLane(lane: number): Promise<void> {
    const { over } = this.world;
    const random = this.world.random(`rng ${lane}`);
    while (!over.aborted) {
      const bytes = random.between(SAMPLE_BYTES, MAX_BYTES);
      await this.ready();
      const { written, data: [data] } = await this.driver.request(0, [], [bytes]);
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
}
