/** The command line of `deno task fuzz`. */
import { UsageError } from "../../src/cli/usage_error.ts";
import { defineTool, type ToolArguments } from "../lib/tool.ts";
import { TARGETS } from "./frame.ts";

const OPTIONS = {
  seed: {
    type: "number",
    placeholder: "S",
    most: 2 ** 32 - 1,
    about: "the seed; the same seed makes the same cases; random by default",
  },
  cases: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 1e9,
    default: 100_000,
    about: "how many cases of each target",
  },
  coverage: {
    type: "text",
    placeholder: "DIR",
    about: "writes to DIR what of the code was reached, and prints it: as text here, and as a " +
      "page in DIR/html",
  },
  list: { type: "flag", about: "prints the targets" },
} as const;

export const FUZZ = defineTool({
  name: "fuzz",
  usage: "[options] TARGET...",
  hasOperands: true,
  about: `\
Does to vhostd what a hostile guest, a hostile front-end and failing storage
can do, at random, and checks what must hold all the same. --list prints the
targets and what they do; "all" stands for all of them.

Each target runs in a process of its own, so that a crash or a hang of it is a
finding like any other. Afterwards the process must hold as many descriptors,
mappings and threads as before.
`,
  options: OPTIONS,
  notes: `\
Progress goes to stderr, a table of counts (messages, faults, outcomes) to stdout. The
exit status is 0 if nothing was found, 1 if something was, 2 for a command line
that makes no sense. Each finding is printed with the command that repeats it;
where threads race, that may take several runs.

Examples:
  deno task fuzz ring --seed=7 --cases=1000000
  deno task fuzz all --coverage=/tmp/coverage
`,
  usageStatus: 2,
  check: checkOptions,
});

export type Options = ReturnType<typeof FUZZ.check>;

function checkOptions({ values, operands }: ToolArguments<typeof OPTIONS>) {
  return {
    ...values,
    seed: values.seed ?? Math.floor(Math.random() * 2 ** 32),
    targets: values.list ? [] : chooseTargets(operands),
  };
}

function chooseTargets(names: string[]): string[] {
  const expected = `expected ${TARGETS.join(", ")} or all`;
  if (names.length === 0) throw new UsageError(`No target: ${expected}; see --help`);
  for (const name of names) {
    if (name !== "all" && !TARGETS.includes(name)) {
      throw new UsageError(`No target is called ${JSON.stringify(name)}: ${expected}`);
    }
  }
  return names.includes("all") ? TARGETS : [...new Set(names)];
}
