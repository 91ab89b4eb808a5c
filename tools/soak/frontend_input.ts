/** Our keyboard under a driver of ours: what is typed arrives once and in order. */
import { withTimeout } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";
import { sleep, type World } from "./actor.ts";
import { DISTURBANCES, REQUEST_TIMEOUT_MS, ServedActor } from "./served.ts";

/** How many buffers the driver keeps in the event queue. */
const BUFFERS = 32;
const EVENT_BYTES = 8;
const EV_KEY = 1, KEY_A = 30;

/** The most that is typed at a time. */
const MAX_KEYS = 64;
/** Press, report, release, report. */
const EVENTS_PER_KEY = 4;

const MAX_PEACE_MS = 300;

/** Buffers stay with the device until there is an event. */
const FOR_EVER_MS = 2 ** 31 - 1;

export class FrontendInput extends ServedActor {
  /** Type, code and value of each event that came and was not looked at yet. */
  readonly #events: [type: number, code: number, value: number][] = [];
  #came = () => {};
  #isEnding = false;

  constructor(world: World) {
    const driverOptions = { queues: 2, timeoutMs: FOR_EVER_MS };
    super(world, "input", "input", ["--profile=keyboard"], driverOptions);
  }

  async run(): Promise<void> {
    const lanes = Array.from({ length: BUFFERS }, () => this.#receive());
    await Promise.race([...lanes, this.#type(), this.backend.failed]);
    this.#isEnding = true;
    await this.end();
    await Promise.all(lanes);
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        await this.ready();
        const { written, data: [data] } = await this.driver.request(0, [], [EVENT_BYTES]);
        if (written !== EVENT_BYTES) throw new ToolError(`input wrote ${written} bytes`);
        const view = new DataView(data.buffer);
        this.#events.push([
          view.getUint16(0, true),
          view.getUint16(2, true),
          view.getInt32(4, true),
        ]);
        this.tally.requests++;
        this.#came();
      }
    } catch (error) {
      if (!this.#isEnding) throw error;
    }
  }

  async #type(): Promise<void> {
    const { random, world: { over } } = this;
    while (!over.aborted) {
      const keys = random.between(1, MAX_KEYS);
      await this.backend.now.post("events", { text: "a".repeat(keys) });
      await this.#expect(keys);
      await sleep(random.below(MAX_PEACE_MS), over);
      // Events that are on their way end with the process, so these are not.
      if (random.chance(1, 8)) await this.disturb(random.pick(DISTURBANCES));
    }
  }

  async #expect(keys: number): Promise<void> {
    const count = keys * EVENTS_PER_KEY;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#came = () => this.#events.length >= count && resolve();
    this.#came();
    await withTimeout(
      promise,
      REQUEST_TIMEOUT_MS,
      () => `input: only ${this.#events.length} of ${count} events came`,
    );
    for (const [at, [type, code, value]] of this.#events.splice(0).entries()) {
      const isKey = at % 2 === 0;
      const expected = isKey ? [EV_KEY, KEY_A, at % 4 === 0 ? 1 : 0] : [0, 0, 0];
      if (at >= count || `${[type, code, value]}` !== `${expected}`) {
        throw new ToolError(
          `input: event ${at} of ${count} is ${[type, code, value]}, and should be ${expected}`,
        );
      }
      this.tally.checkedBytes += EVENT_BYTES;
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true;
    await super[Symbol.asyncDispose]();
  }
}
