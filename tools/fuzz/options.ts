/**
 * The command line of `deno task fuzz`.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { targetNames } from "./targets.ts";

/** What `--help` prints. */
export const HELP = `\
Usage: deno task fuzz [options] TARGET...

Does to vhostd what a hostile guest, a hostile front-end and failing storage
can do, at random, and checks what must hold all the same. --list prints the
targets and what they do; "all" stands for all of them.

Each target runs in a process of its own, so that a crash or a hang of it is a
finding like any other. Afterwards the process must hold as many descriptors,
mappings and threads as before.

Options:
  --seed=S        the seed, from 0 to 4294967295 (default: a random one, which is
                  printed); the same seed makes the same cases
  --cases=N       how many cases of each target (default: 100000)
  --coverage=DIR  writes to DIR what of the code was reached, and prints it:
                  as text here, and as a page in DIR/html
  --list          prints the targets
  --help          prints this

What is done is told on stderr, a table of what was reached goes to stdout. The
exit status is 0 if nothing was found, 1 if something was, 2 for a command line
that makes no sense. What is found is printed with the command that repeats it;
where threads race, it may take that several times.

Examples:
  deno task fuzz ring --seed=7 --cases=1000000
  deno task fuzz all --coverage=/tmp/coverage
`;

/** A command line that makes no sense. */
export class FuzzUsageError extends Error {
  override name = "FuzzUsageError";
}

/** The command line, checked. What it means is in {@linkcode HELP}. */
export interface Options {
  help: boolean;
  list: boolean;
  targets: string[];
  seed: number;
  cases: number;
  coverage: string | undefined;
}

/**
 * Reads the command line.
 *
 * @throws {FuzzUsageError} When something in it is wrong.
 */
export function parseOptions(args: readonly string[]): Options {
  const parsed = parseArgs(args, {
    boolean: ["help", "list"],
    string: ["seed", "cases", "coverage"],
    unknown(arg: string): unknown {
      if (arg.startsWith("-")) throw new FuzzUsageError(`Unknown argument ${arg}; see --help`);
      return true;
    },
  });
  const { help, list, coverage } = parsed;
  if (coverage === "") throw new FuzzUsageError("--coverage= expected a directory");
  return {
    help,
    list,
    coverage,
    targets: help || list ? [] : chooseTargets(parsed._.map(String)),
    seed: wholeNumber("seed", parsed.seed, 0, 2 ** 32 - 1) ?? Math.floor(Math.random() * 2 ** 32),
    cases: wholeNumber("cases", parsed.cases, 1, 1e9) ?? 100_000,
  };
}

function chooseTargets(names: string[]): string[] {
  const all = targetNames();
  const expected = `expected ${all.join(", ")} or all`;
  if (names.length === 0) throw new FuzzUsageError(`No target: ${expected}; see --help`);
  for (const name of names) {
    if (name !== "all" && !all.includes(name)) {
      throw new FuzzUsageError(`No target is called ${JSON.stringify(name)}: ${expected}`);
    }
  }
  return names.includes("all") ? all : [...new Set(names)];
}

function wholeNumber(
  name: string,
  text: string | undefined,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value <= most) return value;
  throw new FuzzUsageError(`--${name}=${text}: expected a whole number from ${least} to ${most}`);
}
