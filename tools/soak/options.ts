/**
 * The command line of `deno task soak`.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { SoakError } from "./soak_error.ts";

/** What `--help` prints. */
export const HELP = `\
Usage: deno task soak [options]

Runs disks, randomness and input of vhostd's, each in a process of its own, under
drivers of ours and under a real Linux guest, and does to them what may happen:
back-ends are killed and started again, connections and rings end and begin anew,
disks are resized, their file systems fill up, their files are cut off and made
whole, the guest reboots, is reset, stopped and killed. Meanwhile every block that
was written is read and compared, and memory, descriptors, threads and requests of
each process are noted.

It fails if a byte is wrong, a request is lost or fails without a reason, something
hangs, a process ends by itself or leaks, and says the seed.

Options:
  --minutes=N      how long, beside starting and ending (default: 1)
  --seed=S         a number: repeats what is done, not each race (default: a random one)
  --only=NAMES     only some of: tmpfs, disk, null, rng, input, guest
  --plot=FILE      where the SVG of it goes (default: .cache/soak.svg)
  --json           prints the report as JSON
  --tmpfs-dir=DIR  where a small tmpfs is mounted; without the right to mount, that
                   disk has a part of it and is never full (default: /dev/shm)
  --disk-dir=DIR   where the disk is (default: /var/tmp)
  --help           prints this

What is done is told on stderr. The exit status is 1 if something was found.

Examples:
  deno task soak --minutes=10
  deno task soak --minutes=2 --seed=7 --only=disk,guest
`;

/** Those that take part. */
export const NAMES = ["tmpfs", "disk", "null", "rng", "input", "guest"] as const;

/** One of these. */
export type Name = typeof NAMES[number];

/** The command line, checked. What it means is in {@linkcode HELP}. */
export interface Options {
  help: boolean;
  json: boolean;
  minutes: number;
  seed: number;
  only: readonly Name[];
  plotPath: string;
  tmpfsDirectory: string;
  diskDirectory: string;
}

const DEFAULT_PLOT = new URL("../../.cache/soak.svg", import.meta.url).pathname;

/**
 * Reads the command line.
 *
 * @throws {SoakError} When something in it is wrong.
 */
export function parseOptions(args: string[]): Options {
  const parsed = parseArgs(args, {
    boolean: ["help", "json"],
    string: ["minutes", "seed", "only", "plot", "tmpfs-dir", "disk-dir"],
    unknown(arg: string): unknown {
      throw new SoakError(`Unknown argument ${arg}; see --help`);
    },
  });
  const randomSeed = crypto.getRandomValues(new Uint32Array(1))[0];
  return {
    help: parsed.help,
    json: parsed.json,
    minutes: number("minutes", parsed.minutes, 1, 0.1, 10_000),
    seed: Math.trunc(number("seed", parsed.seed, randomSeed, 0, 2 ** 32 - 1)),
    only: names(parsed.only),
    plotPath: parsed.plot ?? DEFAULT_PLOT,
    tmpfsDirectory: parsed["tmpfs-dir"] ?? "/dev/shm",
    diskDirectory: parsed["disk-dir"] ?? "/var/tmp",
  };
}

/** The command line that does what these options say. */
export function commandOf({ minutes, seed, only }: Options): string {
  const some = only.length === NAMES.length ? "" : ` --only=${only.join(",")}`;
  return `deno task soak --minutes=${minutes} --seed=${seed}${some}`;
}

function number(
  name: string,
  text: string | undefined,
  otherwise: number,
  least: number,
  most: number,
): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (text !== "" && value >= least && value <= most) return value;
  throw new SoakError(`--${name}=${text}: expected a number from ${least} to ${most}`);
}

function names(text: string | undefined): readonly Name[] {
  if (text === undefined) return NAMES;
  const wanted = text.split(",");
  const unknown = wanted.find((name) => !NAMES.some((known) => known === name));
  if (unknown !== undefined) {
    throw new SoakError(`--only=${text}: expected some of ${NAMES.join(", ")}, got ${unknown}`);
  }
  return NAMES.filter((name) => wanted.includes(name));
}
