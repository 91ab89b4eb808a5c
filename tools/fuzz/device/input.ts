/** Input devices: buffers for events, feedback, selections, commands. */
import { concat } from "@std/bytes";
import input from "../../../backends/input/mod.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { accessConfig, divide, divided, expectBroken, type Life, withLife } from "./life.ts";

const EVENTQ = 0, STATUSQ = 1;
const EVENT_BYTES = 8;
const EV_SYN = 0, EV_KEY = 1, EV_LED = 17;

/** Keys that a keyboard has: KEY_ESC to KEY_SPACE. */
const FIRST_KEY = 1, LAST_KEY = 57;

/** The places of `select`, `subsel`, `size` and `u`: virtio 1.3, 5.8.4. */
const CONFIG_BYTES = 136, SIZE_OFFSET = 2, ANSWER_OFFSET = 8;

/** Lives through one input device with at most `cases` things done; returns how many there were. */
export async function liveAsInput(random: Random, cases: number, tally: Tally): Promise<number> {
  const profile = random.pick(["keyboard", "keyboard", "mouse", "tablet"]);
  const name = `input (${profile})`;
  return await withLife(
    { name, random, tally, device: input, options: { profile }, driver: { queues: 2 } },
    (life) => new InputLife(life, profile === "keyboard").run(Math.min(cases, 200)),
  );
}

class InputLife {
  #said = 0;

  constructor(readonly life: Life, readonly hasKeys: boolean) {}

  async run(cases: number): Promise<number> {
    const { random, server, tally } = this.life;
    for (let done = 0; done < cases; done++) {
      switch (random.below(6)) {
        case 0:
        case 1:
          await this.#access();
          break;
        case 2:
          await this.#say();
          break;
        case 3:
          this.#command();
          break;
        default:
          if (this.hasKeys) await this.#type();
          else await this.#say();
      }
    }
    const report = server.host.control.report!() as {
      status: { count: number }[];
      otherStatus: number;
    };
    const heard = report.status.reduce((sum, { count }) => sum + count, report.otherStatus);
    if (heard !== this.#said) throw new Error(`Expected ${this.#said} said, got ${heard}`);
    tally.add("input: lives");
    return cases;
  }

  /** Config space: `select` and `subsel` are the driver's, all else is the answer. */
  async #access(): Promise<void> {
    const all = new Set(Array.from({ length: CONFIG_BYTES }, (_, at) => at));
    await accessConfig(this.life, all);
    const config = await this.life.driver.connection.getConfig(0, CONFIG_BYTES);
    const size = config[SIZE_OFFSET];
    if (size > CONFIG_BYTES - ANSWER_OFFSET) throw new Error(`An answer has ${size} bytes`);
    if (config.subarray(ANSWER_OFFSET + size).some((byte) => byte !== 0)) {
      throw new Error(`Expected nothing behind an answer of ${size} bytes`);
    }
    this.life.tally.add(`input: answers ${size === 0 ? "of nothing" : "of something"}`);
  }

  async #say(): Promise<void> {
    const { random, driver, tally } = this.life;
    if (random.chance(1, 10)) {
      const short = new Uint8Array(random.below(EVENT_BYTES));
      const room = random.chance(1, 2) ? [random.below(20)] : [];
      // A chain has at least one part.
      await expectBroken(this.life, STATUSQ, [short], room);
      return;
    }
    const bytes = new Uint8Array(EVENT_BYTES + random.below(20));
    const view = new DataView(bytes.buffer);
    view.setUint16(0, random.pick([EV_LED, EV_LED, EV_SYN, random.u32()]), true);
    view.setUint16(2, random.pick([0, 1, 2, random.u32()]), true);
    view.setInt32(4, random.pick([0, 1, -1, random.u32()]), true);
    const { written } = await driver.request(STATUSQ, divided(random, bytes), []);
    if (written !== 0) throw new Error(`Expected nothing written on statusq, got ${written}`);
    this.#said++;
    tally.add("input: feedback");
  }

  /** The host sends events, the driver has buffers for them, before or after. */
  async #type(): Promise<void> {
    const { random, driver, server, tally } = this.life;
    const { events } = server.host.control.commands!;
    if (random.chance(1, 10)) {
      events.run({ type: EV_KEY, code: FIRST_KEY, value: 0 });
      await expectBroken(this.life, EVENTQ, [], divide(random, random.below(EVENT_BYTES)));
      return;
    }
    const keys = Array.from({ length: random.between(1, 12) }, () => ({
      type: EV_KEY,
      code: random.between(FIRST_KEY, LAST_KEY),
      value: random.below(2),
    }));
    // A key that stays down would be told again to each driver that begins.
    for (const { code } of keys.filter(({ value }) => value === 1)) {
      keys.push({ type: EV_KEY, code, value: 0 });
    }
    const isFirst = random.chance(1, 2);
    if (isFirst) events.run(keys);
    const buffers = Array.from(
      { length: keys.length + 1 },
      () =>
        driver.request(
          EVENTQ,
          random.chance(1, 8) ? [new Uint8Array(random.below(9))] : [],
          divide(random, EVENT_BYTES + (random.chance(1, 4) ? random.below(20) : 0)),
        ),
    );
    if (!isFirst) events.run(keys);
    for (const [i, buffer] of buffers.entries()) {
      const { written, data } = await buffer;
      const view = new DataView(concat(data).buffer);
      const got = [
        written,
        view.getUint16(0, true),
        view.getUint16(2, true),
        view.getInt32(4, true),
      ];
      const { type, code, value } = keys[i] ?? { type: EV_SYN, code: 0, value: 0 };
      if (JSON.stringify(got) !== JSON.stringify([EVENT_BYTES, type, code, value])) {
        throw new Error(`Expected event ${type} ${code} ${value}, got ${got}`);
      }
    }
    tally.add("input: events", buffers.length);
  }

  /** Sends a command that is no event. */
  #command(): void {
    const { random, server, tally } = this.life;
    const body = random.pick<unknown>([
      ...[null, [], 7, "text", { key: "nothing" }, { text: "\u0000" }, [{ type: "EV_KEY" }]],
      ...[{ position: [-1] }, { wheel: "up" }, { move: [random.u32(), Infinity] }],
      { type: random.u32(), code: random.u32(), value: random.u32() },
      { type: EV_KEY, code: 0xffff, value: 1 },
    ]);
    try {
      server.host.control.commands!.events.run(body);
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
      tally.add("input: commands refused");
      return;
    }
    throw new Error(`Expected ${JSON.stringify(body)} to be refused`);
  }
}
