/** The command line of `deno task bench`. */
import { OptionError } from "../../src/virtio/options.ts";
import { defineTool, fraction, type ToolArguments } from "../lib/tool.ts";
import { PROCESSORS, type Processors } from "./awake.ts";
import { allCells, type Cell, quickCells, selectCells } from "./cells.ts";

const OPTIONS = {
  quick: { type: "flag", about: "the main cells in a few minutes" },
  runs: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 1000,
    about: "runs of each side; 5 by default, 3 with --quick",
  },
  seconds: {
    type: "text",
    placeholder: "S",
    about: "how long each run is measured; 1 by default, 0.3 with --quick",
  },
  json: { type: "flag", about: "prints JSON in place of the table" },
  list: { type: "flag", about: "prints the names of the cells" },
  processors: {
    type: "text",
    placeholder: "asleep|awake|both",
    choices: ["asleep", "awake", "both"],
    default: "both",
    about: "what processors do while nothing runs on them: where they sleep deeply, waking them " +
      "is most of a result; a thread that runs only while nothing else does keeps them awake",
  },
  older: { type: "flag", about: "the peer's older version too, where there are two" },
  indirect: { type: "flag", about: "chains are indirect ones, as Linux's driver makes them" },
  flags: {
    type: "text",
    placeholder: '"FLAGS"',
    about: 'more flags for vhostd\'s device, such as "--io=sync"',
  },
  v8Flags: {
    type: "text",
    placeholder: '"FLAGS"',
    about: 'flags of V8 for vhostd, such as "--perf-basic-prof"',
  },
  tmpfsDir: { type: "text", placeholder: "DIR", default: "/dev/shm", about: "where tmpfs is" },
  diskDir: { type: "text", placeholder: "DIR", default: "/var/tmp", about: "where the disk is" },
} as const;

export const BENCH = defineTool({
  name: "bench",
  usage: "[net] [options] [CELL...]",
  hasOperands: true,
  about: `\
Drives vhostd and qemu-storage-daemon in turn with the same load and prints one
table. Each run has a fresh process; numbers are medians, ratios are those of
runs that came one after the other.

Cells are called STORE/OPERATION/qdDEPTH[/VARIANT], such as null/read4k/qd32:
  STORE      null, tmpfs, disk (page cache), disk-direct (O_DIRECT),
             nbd (nbdkit's memory; QEMU's own NBD driver beside ours),
             rbd (a Ceph cluster in memory, as root; QEMU's driver for it, with
             the same librbd, beside ours),
             overlay (all of the disk is in it), overlay-base (nothing is;
             qcow2 with the same backing file beside ours)
  OPERATION  read4k, write4k (random), seqread128k, seqwrite128k
  DEPTH      1, 32, 128 requests in flight per queue
  VARIANT    2q        two queues, two threads of ours
             packed    packed queues against our split ones
             poll      ours against ours that never polls
             2threads  two queues that share DEPTH against our one
             typescript, promise
                       a store in TypeScript that answers at once, or by a
                       promise, against --null
  Each also with /client-polls at its end: there the load generator polls for
  what comes back; it sleeps otherwise, as a driver in a guest does.
A CELL is a name, some of its parts (null, read4k/qd32, 2q), or has * in it.
With CELLs only these are measured, and nothing beside them.

With net, the network device is measured instead: packets of DPDK's testpmd
against testpmd's own back-end, packets through a switch, and, as root, TCP over
a TAP: between two network stacks against passt, and against testpmd as a relay,
and between a guest and the host against QEMU's own TAP. There a CELL is a part
of a name, such as null or packed; --list prints the names.
`,
  options: OPTIONS,
  notes: `\
Progress goes to stderr. The exit status is 1 if something could not be
measured; goals that are not met do not change it.

Examples:
  deno task bench --quick
  deno task bench null/read4k/qd32
  deno task bench net --quick
  deno task bench --runs=9 "tmpfs/*4k/qd32"
  deno task bench --flags=--io=sync tmpfs/read4k
`,
  check: checkOptions,
});

export type Options = ReturnType<typeof BENCH.check>;

function checkOptions({ values, operands }: ToolArguments<typeof OPTIONS>) {
  const { quick, processors } = values;
  const isNet = operands[0] === "net";
  const text = values.seconds ?? (quick ? "0.3" : "1");
  const seconds = fraction("--seconds", text, 0.05, 3600);
  const both = Object.keys(PROCESSORS) as Processors[];
  return {
    ...values,
    runs: values.runs ?? (quick ? 3 : 5),
    seconds,
    /** How long a load runs before it is measured. */
    warmSeconds: Math.max(0.25, seconds / 3),
    /** What processors do; each cell is measured with each. */
    processors: processors === "both" ? both : [processors],
    /** What names of cells contain, for the network device; nothing for disks. */
    netFilters: isNet ? operands.slice(1) : undefined,
    cells: isNet ? [] : chooseCells(operands, quick),
    /** Measure what is beside the cells, too. */
    withExtras: operands.length === 0,
    own: { flags: words(values.flags), v8Flags: words(values.v8Flags) },
  };
}

function words(text = ""): string[] {
  return text.split(/\s+/).filter((word) => word);
}

function chooseCells(filters: string[], isQuick: boolean): Cell[] {
  if (filters.length === 0) return isQuick ? quickCells() : allCells();
  const chosen = new Set<string>();
  for (const filter of filters) {
    const found = selectCells(allCells(), filter);
    if (found.length === 0) {
      throw new OptionError(`No cell is called ${filter}; --list prints their names`);
    }
    for (const { name } of found) chosen.add(name);
  }
  return allCells().filter(({ name }) => chosen.has(name));
}
