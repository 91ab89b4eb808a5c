/**
 * The command line of `deno task bench`.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { PROCESSORS, type Processors } from "./awake.ts";
import { BenchError } from "./bench_error.ts";
import { allCells, type Cell, quickCells, selectCells } from "./cells.ts";
import type { OwnOptions } from "./sides.ts";

/** What `--help` prints. */
export const HELP = `\
Usage: deno task bench [options] [CELL...]

Drives vhostd and qemu-storage-daemon in turn with the same load and prints one
table. Each run has a fresh process; numbers are medians, ratios are those of
runs that came one after the other.

Cells are called STORE/OPERATION/qdDEPTH[/VARIANT], such as null/read4k/qd32:
  STORE      null, tmpfs, disk (page cache), disk-direct (O_DIRECT)
  OPERATION  read4k, write4k (random), seqread128k, seqwrite128k
  DEPTH      1, 32, 128 requests in flight per queue
  VARIANT    2q        two queues, two threads of ours
             packed    packed queues against our split ones
             poll      ours against ours that never polls
             2threads  two queues that share DEPTH against our one
  Each also with /client-polls at its end: there the load generator polls for
  what comes back; it sleeps otherwise, as a driver in a guest does.
A CELL is a name, some of its parts (null, read4k/qd32, 2q), or has * in it.
With CELLs only these are measured, and nothing beside them.

Options:
  --quick          the main cells in a few minutes
  --runs=N         runs of each side (default: 5; quick: 3)
  --seconds=S      how long each run is measured (default: 1; quick: 0.3)
  --json           prints JSON in place of the table
  --list           prints the names of the cells
  --processors=asleep|awake|both
                   what processors do while nothing runs on them: where they
                   sleep deeply, waking them is most of a result; a thread that
                   runs only while nothing else does keeps them awake
                   (default: both)
  --older          the peer's older version too, where there are two
  --indirect       chains are indirect ones, as Linux's driver makes them
  --flags="FLAGS"  more flags for vhostd blk, such as "--io=sync"
  --v8-flags="FLAGS"
                   flags of V8 for vhostd, such as "--perf-basic-prof"
  --tmpfs-dir=DIR  where tmpfs is (default: /dev/shm)
  --disk-dir=DIR   where the disk is (default: /var/tmp)
  --help           prints this

What is done is told on stderr. The exit status is 1 if something could not be
measured; goals that are not met do not change it.

Examples:
  deno task bench --quick
  deno task bench null/read4k/qd32
  deno task bench --runs=9 "tmpfs/*4k/qd32"
  deno task bench --flags=--io=sync tmpfs/read4k
`;

/** The command line, checked. What it means is in {@linkcode HELP}. */
export interface Options {
  help: boolean;
  list: boolean;
  json: boolean;
  isQuick: boolean;
  /** What processors do; each cell is measured with each. */
  processors: Processors[];
  /** Measure older versions of the peer, too. */
  withOlder: boolean;
  isIndirect: boolean;
  cells: Cell[];
  /** Measure what is beside the cells, too. */
  withExtras: boolean;
  runs: number;
  seconds: number;
  warmSeconds: number;
  own: OwnOptions;
  socketDirectory: string;
  tmpfsDirectory: string;
  diskDirectory: string;
}

/**
 * Reads the command line.
 *
 * @throws {BenchError} When something in it is wrong.
 */
export function parseOptions(args: string[]): Options {
  const parsed = parseArgs(args, {
    boolean: ["help", "list", "json", "quick", "older", "indirect"],
    string: ["runs", "seconds", "processors", "flags", "v8-flags", "tmpfs-dir", "disk-dir"],
    unknown(arg: string): unknown {
      if (arg.startsWith("-")) throw new BenchError(`Unknown argument ${arg}; see --help`);
      return true;
    },
  });
  const filters = parsed._.map(String);
  const isQuick = parsed.quick;
  const seconds = number(parsed, "seconds", isQuick ? 0.3 : 1, 0.05, 3600);
  return {
    help: parsed.help,
    list: parsed.list,
    json: parsed.json,
    isQuick,
    processors: processors(parsed.processors ?? "both"),
    withOlder: parsed.older,
    isIndirect: parsed.indirect,
    cells: chooseCells(filters, isQuick),
    withExtras: filters.length === 0,
    runs: Math.trunc(number(parsed, "runs", isQuick ? 3 : 5, 1, 1000)),
    seconds,
    warmSeconds: Math.max(0.25, seconds / 3),
    own: { flags: words(parsed.flags), v8Flags: words(parsed["v8-flags"]) },
    socketDirectory: Deno.env.get("TMPDIR") ?? "/tmp",
    tmpfsDirectory: parsed["tmpfs-dir"] ?? "/dev/shm",
    diskDirectory: parsed["disk-dir"] ?? "/var/tmp",
  };
}

function processors(text: string): Processors[] {
  const all = Object.keys(PROCESSORS) as Processors[];
  if (text === "both") return all;
  const chosen = all.find((name) => name === text);
  if (chosen) return [chosen];
  throw new BenchError(`--processors=${text}: expected ${all.join(", ")} or both`);
}

function words(text = ""): string[] {
  return text.split(/\s+/).filter((word) => word);
}

function number(
  parsed: Record<string, unknown>,
  name: string,
  otherwise: number,
  least: number,
  most: number,
): number {
  const text = parsed[name];
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (text !== "" && value >= least && value <= most) return value;
  throw new BenchError(`--${name}=${text}: expected a number from ${least} to ${most}`);
}

function chooseCells(filters: string[], isQuick: boolean): Cell[] {
  if (filters.length === 0) return isQuick ? quickCells() : allCells();
  const chosen = new Set<string>();
  for (const filter of filters) {
    const found = selectCells(allCells(), filter);
    if (found.length === 0) {
      throw new BenchError(`No cell is called ${filter}; --list prints their names`);
    }
    for (const { name } of found) chosen.add(name);
  }
  return allCells().filter(({ name }) => chosen.has(name));
}
