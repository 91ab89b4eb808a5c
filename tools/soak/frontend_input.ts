/** Our keyboard under a driver of ours: what is typed arrives once and in order. */
import { withTimeout } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";
import { sleep, type World } from "./actor.ts";
import { DISTURBANCES, ReceivingActor, REQUEST_TIMEOUT_MS } from "./served.ts";

/** How many buffers the driver keeps in the event queue. */
const BUFFERS = 32;
const EVENT_BYTES = 8;
const EV_KEY = 1, KEY_A = 30;

/** The most that is typed at a time. */
const MAX_KEYS = 64;
/** Press, report, release, report. */
const EVENTS_PER_KEY = 4;

const MAX_PEACE_MS = 300;

export class FrontendInput extends ReceivingActor {
  /** Type, code and value of each event that came and was not looked at yet. */
  readonly #events: [type: number, code: number, value: number][] = [];
  #came = () => {};

  constructor(world: World) {
    const buffers = { count: BUFFERS, bytes: EVENT_BYTES };
    super(world, "input", ["--profile=keyboard"], buffers, { queues: 2 });
  }

  async run(): Promise<void> {
    await this.receiveDuring(this.#type());
  }

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    if (bytes.length !== EVENT_BYTES) throw new ToolError(`input wrote ${bytes.length} bytes`);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    this.#events.push([view.getUint16(0, true), view.getUint16(2, true), view.getInt32(4, true)]);
    this.#came();
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
}
