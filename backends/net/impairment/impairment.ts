/**
 * Impairments: delay, loss and limits of a network that works too well.
 *
 * @module
 */

import { flagName, OptionError, type Options, type OptionValues } from "../../../mod.ts";

/** The longest delay, in milliseconds. */
const MAX_DELAY_MS = 60_000;

/** The options of impairments. */
export const impairmentOptions = {
  delay: {
    type: "text",
    placeholder: "TIME",
    about: "Delay packets: 20ms, 500us; here and below tx:…,rx:… for the guest's sent and received",
  },
  jitter: {
    type: "text",
    placeholder: "TIME",
    about: "Vary the delay by up to this, and keep the order",
    needs: "delay",
  },
  loss: { type: "text", placeholder: "PERCENT", about: "Lose packets at random: 0.1%" },
  duplicate: { type: "text", placeholder: "PERCENT", about: "Duplicate packets at random" },
  reorder: {
    type: "text",
    placeholder: "PERCENT",
    about: "Let packets overtake those that are delayed, at random",
    needs: "delay",
  },
  rate: { type: "text", placeholder: "RATE", about: "Limit each pair of queues: 10mbit, 64kbit" },
  seed: {
    type: "number",
    placeholder: "N",
    most: 2 ** 32 - 1,
    about: "Repeat the random choices of an earlier run",
  },
} as const satisfies Options;

/** What is done to packets of one direction. */
export interface DirectionImpairment {
  /** The delay of each packet, in milliseconds. */
  readonly delayMs: number;
  /** The most by which a delay differs from that. */
  readonly jitterMs: number;
  /** The part of packets that is lost, 0 to 1. */
  readonly loss: number;
  /** The part of packets that comes twice. */
  readonly duplicate: number;
  /** The part of packets that is not delayed. */
  readonly reorder: number;
  /** The most bits of frames per second and pair of queues; 0: no limit. */
  readonly rate: number;
}

/** What is done to packets; plain values, for the threads. */
export interface Impairment {
  /** Packets that the driver sends. */
  readonly tx: DirectionImpairment;
  /** Packets that it receives. */
  readonly rx: DirectionImpairment;
  /** From this follow the random choices. */
  readonly seed: number;
  /** Packets pass. */
  readonly isLinkUp: boolean;
}

/** Whether packets pass as they are. */
export function isClean({ tx, rx, isLinkUp }: Impairment): boolean {
  return isLinkUp && isCleanWay(tx) && isCleanWay(rx);
}

/** Whether packets of a direction pass as they are. */
export function isCleanWay(way: DirectionImpairment): boolean {
  return Object.values(way).every((value) => value === 0);
}

/** Packets pass as they are. */
export const CLEAN: DirectionImpairment = {
  delayMs: 0,
  jitterMs: 0,
  loss: 0,
  duplicate: 0,
  reorder: 0,
  rate: 0,
};

type Field = keyof DirectionImpairment;
type Given = Readonly<Record<string, unknown>>;

interface Quantity {
  /** The field that it sets. */
  readonly field: Field;
  /** Units, and how much of the field's unit each is. */
  readonly units: Readonly<Record<string, number>>;
  readonly least: number;
  readonly most: number;
  readonly example: string;
}

const TIME = {
  units: { us: 0.001, ms: 1, s: 1000 },
  least: 0,
  most: MAX_DELAY_MS,
  example: "20ms",
};
const PART = { units: { "%": 0.01 }, least: 0, most: 1, example: "0.1%" };

const QUANTITIES: Readonly<Record<string, Quantity>> = {
  delay: { field: "delayMs", ...TIME },
  jitter: { field: "jitterMs", ...TIME },
  loss: { field: "loss", ...PART },
  duplicate: { field: "duplicate", ...PART },
  reorder: { field: "reorder", ...PART },
  rate: {
    field: "rate",
    units: { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 },
    least: 1000,
    most: 1e12,
    example: "10mbit",
  },
};

/**
 * Parses what a user gave, by option: `20ms`, or `tx:20ms,rx:5ms`, or one of them.
 *
 * @param nameOf What messages call an option.
 * @throws {OptionError} When a value is wrong, or has no effect.
 */
function parseImpairment(
  given: Given,
  nameOf: (option: string) => string,
): Pick<Impairment, "tx" | "rx"> {
  const ways: Record<"tx" | "rx", Record<Field, number>> = {
    tx: { ...CLEAN },
    rx: { ...CLEAN },
  };
  for (const [option, quantity] of Object.entries(QUANTITIES)) {
    const text = given[option];
    if (text === undefined) continue;
    for (const [way, value] of parseWays(text, quantity, nameOf(option))) {
      ways[way][quantity.field] = value;
    }
  }
  for (const [way, { delayMs, jitterMs, reorder }] of Object.entries(ways)) {
    if (jitterMs > delayMs) {
      throw new OptionError(
        `${nameOf("jitter")} may be at most ${
          nameOf("delay")
        }, got ${jitterMs} ms and ${delayMs} ms for ${way}`,
      );
    }
    if (reorder > 0 && delayMs === 0) {
      throw new OptionError(
        `${nameOf("reorder")} has no effect without ${
          nameOf("delay")
        } for ${way}: packets overtake those that are delayed`,
      );
    }
  }
  return ways;
}

function parseWays(text: unknown, quantity: Quantity, name: string): ["tx" | "rx", number][] {
  const wrong = () =>
    new OptionError(
      `${name} takes ${describe(quantity)}, or tx:…,rx:…; got ${JSON.stringify(text)}`,
    );
  if (typeof text !== "string") throw wrong();
  const words = text.split(",").map((word) => /^(?:(tx|rx):)?([\d.]+)([a-z%]*)$/.exec(word));
  const values = words.map((match): [string | undefined, number] => {
    const unit = match === null ? undefined : quantity.units[match[3]];
    const isZero = match !== null && match[3] === "" && Number(match[2]) === 0;
    const value = isZero ? 0 : Number(match?.[2]) * (unit ?? NaN);
    if (!(value === 0 || value >= quantity.least && value <= quantity.most)) throw wrong();
    return [match?.[1], value];
  });
  const [[way, value]] = values;
  if (way === undefined) {
    if (values.length > 1) throw wrong();
    return [["tx", value], ["rx", value]];
  }
  if (values.some(([other], i) => other === undefined || i > 0 && other === way)) throw wrong();
  return values as ["tx" | "rx", number][];
}

function describe({ units, least, most, example }: Quantity): string {
  const [name, factor] = Object.entries(units).at(-1)!;
  const [smallest, small] = Object.entries(units)[0];
  const from = least === 0 ? "0" : `0 or ${least / small}${smallest}`;
  return `${from} to ${most / factor}${name} such as ${example}`;
}

/** The impairment that the options ask for; a seed of its own if none is given. */
export function impairmentFrom(options: OptionValues<typeof impairmentOptions>): Impairment {
  const { tx, rx } = parseImpairment(options, (option) => `--${flagName(option)}`);
  return { tx, rx, seed: options.seed ?? randomSeed(), isLinkUp: true };
}

function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/**
 * Parses the body of `POST /impair`: the options' names and values. What it leaves out is off.
 *
 * @throws {TypeError} When it is wrong.
 */
export function parseImpairBody(body: unknown, { isLinkUp }: Impairment): Impairment {
  const names = [...Object.keys(QUANTITIES), "seed"];
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new TypeError(`Expected an object such as {"delay":"20ms"}, got ${JSON.stringify(body)}`);
  }
  const unknown = Object.keys(body).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new TypeError(`Expected ${names.join(", ")}; got ${JSON.stringify(unknown)}`);
  }
  const { seed = randomSeed() } = body as { seed?: unknown };
  if (typeof seed !== "number" || !Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) {
    throw new TypeError(`seed takes 0 to ${2 ** 32 - 1}, got ${JSON.stringify(seed)}`);
  }
  try {
    return { ...parseImpairment(body as Given, (option) => option), seed, isLinkUp };
  } catch (error) {
    throw new TypeError((error as Error).message, { cause: error });
  }
}

/**
 * Parses the body of `POST /link`.
 *
 * @throws {TypeError} When it is wrong.
 */
export function parseLinkBody(body: unknown): boolean {
  const up = (body as { up?: unknown } | null | undefined)?.up;
  if (typeof up === "boolean" && Object.keys(body as object).length === 1) return up;
  throw new TypeError(`Expected {"up":true} or {"up":false}, got ${JSON.stringify(body)}`);
}

/** What the record and `POST /impair` tell: what is in force in each direction, and the seed. */
export function impairmentJson({ tx, rx, seed }: Impairment): Record<string, unknown> {
  const inForce = (way: DirectionImpairment) =>
    Object.fromEntries(Object.entries(way).filter(([, value]) => value !== 0));
  return { tx: inForce(tx), rx: inForce(rx), seed };
}
