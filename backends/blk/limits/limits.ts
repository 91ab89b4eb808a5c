/**
 * Limits of a disk: the options, the command that changes them, and what the record says.
 *
 * @module
 */

import {
  type DeviceCommand,
  type NumberOption,
  OptionError,
  type Options,
  type OptionValues,
  parseOption,
} from "../../../mod.ts";
import { type Limit, LIMITS, type Limits, TokenPool } from "./token_pool.ts";

/** The options of limits. */
export const limitOptions = {
  iops: {
    type: "text",
    placeholder: "N[/BURST]",
    about: "Carry out at most N requests per second, and up to BURST at once after a pause, by " +
      "default a tenth of N",
  },
  bandwidth: {
    type: "text",
    placeholder: "SIZE[/BURST]",
    about: "Read, write, zero and discard at most SIZE bytes per second, with BURST as for --iops",
  },
} as const satisfies Options;

/** The rate and the burst, each as an option. */
const AMOUNTS: Readonly<Record<keyof Limits, NumberOption>> = {
  iops: { type: "number", placeholder: "N", least: 1, most: 10 ** 8, about: "" },
  bandwidth: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 512,
    most: 2 ** 45,
    about: "",
  },
};

/** The parts of a second that a burst has by default, and at least: how late a timer may be. */
const DEFAULT_BURST_PART = 10, LEAST_BURST_PART = 100;

/** The limits of a disk, on the main thread. */
export class LimitControl {
  /** The buckets. */
  readonly pool: TokenPool;
  readonly #changed: () => Promise<unknown>;
  #current: Limits;

  /**
   * @param changed Tells the queue threads that the limits changed.
   * @throws {OptionError} When an option is wrong.
   */
  constructor(
    options: OptionValues<typeof limitOptions>,
    queues: number,
    changed: () => Promise<unknown>,
  ) {
    this.pool = new TokenPool(queues);
    this.#changed = changed;
    this.#current = parseLimits(options, "--");
    this.pool.set(this.#current);
  }

  /** Commands for the control socket. */
  readonly commands: Readonly<Record<"limit", DeviceCommand>> = {
    limit: {
      about: 'Limit the disk: {"iops":"1000/5000","bandwidth":"10M"}, {} for no limit; answers ' +
        "what is in force",
      run: async (body) => {
        if (body !== undefined) await this.#set(parseLimitBody(body));
        return this.#json();
      },
    },
  };

  async #set(limits: Limits): Promise<void> {
    while (!this.pool.set(limits)) await new Promise((resolve) => setTimeout(resolve, 1));
    this.#current = limits;
    await this.#changed();
  }

  #json(): Record<string, unknown> {
    return { ...this.#current };
  }

  /** Returns what it adds to the record. */
  report(): Record<string, unknown> {
    return Object.keys(this.#current).length === 0
      ? {}
      : { limits: { ...this.#json(), waits: this.pool.waits } };
  }
}

/**
 * Parses limits: `N` or `N/BURST` each.
 *
 * @param prefix What messages have before the name of a limit.
 * @throws {OptionError} When one is wrong.
 */
function parseLimits(given: { readonly [K in keyof Limits]?: unknown }, prefix: string): Limits {
  return Object.fromEntries(
    LIMITS.filter((kind) => given[kind] !== undefined)
      .map((kind) => [kind, parseLimit(kind, given[kind], prefix + kind)]),
  );
}

function parseLimit(kind: keyof Limits, given: unknown, name: string): Limit {
  const { placeholder } = limitOptions[kind];
  if (typeof given !== "string" && typeof given !== "number") {
    throw new OptionError(`${name} takes ${placeholder}, got ${JSON.stringify(given)}`);
  }
  const [rate, most, ...others] = String(given).split("/");
  if (others.length > 0) {
    throw new OptionError(`${name} takes ${placeholder}, got ${JSON.stringify(given)}`);
  }
  const perSecond = parseAmount(kind, name, rate);
  if (most === undefined) {
    return { perSecond, burst: Math.max(1, perSecond / DEFAULT_BURST_PART) };
  }
  const burst = parseAmount(kind, `the burst of ${name}`, most);
  const least = Math.ceil(perSecond / LEAST_BURST_PART);
  if (burst < least) {
    throw new OptionError(
      `the burst of ${name} takes at least ${least}, which is 10 ms of its rate, got ${most}`,
    );
  }
  return { perSecond, burst };
}

function parseAmount(kind: keyof Limits, name: string, text: string): number {
  try {
    return parseOption(kind, AMOUNTS[kind], text) as number;
  } catch (error) {
    throw new OptionError((error as Error).message.replace(`--${kind}`, name));
  }
}

/**
 * Parses the body of `POST /limit`: the options' names and values. What it leaves out has no limit.
 *
 * @throws {TypeError} When it is wrong.
 */
function parseLimitBody(body: unknown): Limits {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new TypeError(`Expected an object such as {"iops":1000}, got ${JSON.stringify(body)}`);
  }
  const unknown = Object.keys(body).find((name) => !LIMITS.includes(name as keyof Limits));
  if (unknown !== undefined) {
    throw new TypeError(`Expected ${LIMITS.join(", ")}; got ${JSON.stringify(unknown)}`);
  }
  try {
    return parseLimits(body, "");
  } catch (error) {
    throw new TypeError((error as Error).message, { cause: error });
  }
}
