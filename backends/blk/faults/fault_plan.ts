/**
 * Which requests of a disk fail on purpose, and how.
 *
 * @module
 */

import { OptionError, type Options, parseOption } from "../../../mod.ts";
import { Errno, errnoName } from "../../../src/linux/mod.ts";

/** The option for faults. */
export const faultOptions = {
  faults: {
    type: "text",
    placeholder: "FAULTS",
    about:
      "Fail on purpose: error=write:1%:ENOSPC or delay=read:5ms-20ms, short=, torn=, stuck=, " +
      "each with kinds of requests, a part of them, a range of the disk (1M-2M); seed=N repeats " +
      "the choices; none only lets POST /faults change them",
  },
} as const satisfies Options;

/** The kinds of requests. */
export const REQUESTS = ["read", "write", "flush", "discard", "zeroes", "erase"] as const;

/** What can happen to a request. */
export const FAULTS = ["error", "delay", "short", "torn", "stuck"] as const;

/** A kind of fault. */
export type Fault = typeof FAULTS[number];

/** The most faults of a plan. */
const MAX_RULES = 16;

/** The longest delay. */
const MAX_DELAY_MS = 60_000;

/** Faults of one kind; plain values, for the threads. */
export interface FaultRule {
  readonly fault: Fault;
  /** A bit for each of {@linkcode REQUESTS}. */
  readonly requests: number;
  /** The part of these requests, 0 to 1. */
  readonly part: number;
  /** The range of the disk, in bytes: those that touch it. Flushes touch all. */
  readonly from: number;
  readonly to: number;
  readonly errno: number;
  readonly leastMs: number;
  readonly mostMs: number;
}

/** What fails. The first rule that applies to a request decides on it. */
export interface FaultPlan {
  /** As the user gave it. */
  readonly text: string;
  readonly rules: readonly FaultRule[];
  /** From this follow the random choices. */
  readonly seed: number;
}

/** The requests that a fault is of if it does not say. */
const USUAL: Partial<Record<Fault, readonly string[]>> = {
  short: ["read", "write"],
  torn: ["write"],
};

/**
 * Parses faults: `FAULT=PART:PART…,…`, the parts in any order.
 *
 * @param name What messages call the option.
 * @throws {OptionError} When something is wrong.
 */
export function parseFaults(text: string, name: string): FaultPlan {
  let seed = crypto.getRandomValues(new Uint32Array(1))[0];
  const rules: FaultRule[] = [];
  for (const word of text === "none" ? [] : text.split(",")) {
    const [, what, value] = /^([a-z]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (what === "seed") {
      const definition = {
        type: "number",
        placeholder: "N",
        most: 2 ** 32 - 1,
        about: "",
      } as const;
      seed = renamed(name, () => parseOption("seed", definition, value ?? "") as number);
    } else if (FAULTS.includes(what as Fault)) {
      rules.push(parseRule(what as Fault, value?.split(":") ?? [], name));
    } else {
      throw new OptionError(
        `${name} takes ${FAULTS.join("=, ")}=, seed= or none; got ${JSON.stringify(word)}`,
      );
    }
  }
  if (rules.length > MAX_RULES) {
    throw new OptionError(`${name} takes up to ${MAX_RULES} faults, got ${rules.length}`);
  }
  return { text, rules, seed };
}

function parseRule(fault: Fault, parts: readonly string[], name: string): FaultRule {
  const usual = USUAL[fault] ?? REQUESTS;
  const rule = {
    ...{
      fault,
      requests: maskOf(usual),
      part: 1,
      from: 0,
      to: Infinity,
      errno: Errno.EIO as number,
    },
    ...{ leastMs: 0, mostMs: 0 },
  };
  for (const part of parts) {
    const kinds = part.split("+");
    const range = /^(\d+[KMGT]?)-(\d+[KMGT]?)?$/i.exec(part);
    const time = /^(?:([\d.]+)(us|ms|s)-)?([\d.]+)(us|ms|s)$/.exec(part);
    const percent = /^(\d+(?:\.\d+)?)%$/.exec(part);
    const errno = errnoOf(part);
    if (kinds.every((kind) => usual.includes(kind))) rule.requests = maskOf(kinds);
    else if (percent !== null && Number(percent[1]) <= 100) rule.part = Number(percent[1]) / 100;
    else if (range !== null) [rule.from, rule.to] = parseRange(range, part, name);
    else if (fault === "delay" && time !== null) {
      rule.mostMs = milliseconds(time[3], time[4]);
      rule.leastMs = time[1] === undefined ? rule.mostMs : milliseconds(time[1], time[2]);
    } else if ((fault === "error" || fault === "short") && errno !== undefined) rule.errno = errno;
    else {
      throw new OptionError(
        `${name}: ${fault} takes requests (${usual.join("+")}), a part (1%), a range (1M-2M)${
          fault === "delay" ? ", a time (5ms, 5ms-20ms)" : ""
        }${fault === "error" || fault === "short" ? ", an error (EIO)" : ""}; got ${
          JSON.stringify(part)
        }`,
      );
    }
  }
  if (fault === "delay" && !(rule.mostMs > 0 && rule.leastMs <= rule.mostMs)) {
    throw new OptionError(`${name}: delay needs a time such as delay=5ms or delay=5ms-20ms`);
  }
  if (rule.mostMs > MAX_DELAY_MS) {
    throw new OptionError(`${name}: delay takes up to ${MAX_DELAY_MS / 1000}s`);
  }
  return rule;
}

function parseRange([, from, to]: RegExpExecArray, part: string, name: string): [number, number] {
  const definition = { type: "number", unit: "bytes", placeholder: "SIZE", about: "" } as const;
  const bytes = (text: string) =>
    renamed(name, () => parseOption("range", definition, text) as number);
  const range: [number, number] = [bytes(from), to === undefined ? Infinity : bytes(to)];
  if (range[0] < range[1]) return range;
  throw new OptionError(`${name} takes ranges that are not empty, got ${JSON.stringify(part)}`);
}

function renamed<T>(name: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new OptionError(`${name}: ${(error as Error).message.replace("--", "")}`);
  }
}

function milliseconds(number: string, unit: string): number {
  return Number(number) * { us: 0.001, ms: 1, s: 1000 }[unit as "us" | "ms" | "s"];
}

function maskOf(kinds: readonly string[]): number {
  return kinds.reduce((mask, kind) => mask | 1 << REQUESTS.indexOf(kind as "read"), 0);
}

/** The number of an error by its name, if there is one. */
function errnoOf(name: string): number | undefined {
  for (let errno = 1; errno < 134; errno++) if (errnoName(errno) === name) return errno;
}
