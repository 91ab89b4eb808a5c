/** The command line of `deno task soak`. */
import { defineTool, fraction, type ToolArguments } from "../lib/tool.ts";
import { OptionError } from "../../src/virtio/options.ts";

/** Those that take part. */
export const NAMES = ["tmpfs", "disk", "null", "rng", "input", "net", "guest"] as const;

export type Name = typeof NAMES[number];

const OPTIONS = {
  minutes: {
    type: "text",
    placeholder: "N",
    default: "1",
    about: "how long, beside starting and ending",
  },
  seed: {
    type: "number",
    placeholder: "S",
    most: 2 ** 32 - 1,
    about: "repeats what is done, not each race; random by default",
  },
  only: { type: "text", placeholder: "NAMES", about: `only some of: ${NAMES.join(", ")}` },
  plot: {
    type: "text",
    placeholder: "FILE",
    about: "where the SVG of it goes; .cache/soak.svg by default",
  },
  json: { type: "flag", about: "prints the report as JSON" },
  tmpfsDir: {
    type: "text",
    placeholder: "DIR",
    default: "/dev/shm",
    about: "where a small tmpfs is mounted; without the right to mount, that disk has a part of " +
      "it and is never full",
  },
  diskDir: { type: "text", placeholder: "DIR", default: "/var/tmp", about: "where the disk is" },
} as const;

export const SOAK = defineTool({
  name: "soak",
  usage: "[options]",
  about: `\
Runs disks, randomness, input and a network card of vhostd's, each in a process
of its own, under drivers of ours and under a real Linux guest, with faults:
back-ends are killed and started again, connections and rings end and restart,
disks are resized, their file systems fill up, their files are cut off and made
whole, packets are lost and delayed, the guest reboots, is reset, stopped and
killed. Meanwhile every block that was written is read and compared, every packet
that arrives is compared, and memory, descriptors, threads and requests of each
process are noted.

It fails if a byte is wrong, a request is lost or fails without a reason, something
hangs, a process ends by itself or leaks, and prints the seed.
`,
  options: OPTIONS,
  notes: `\
Progress goes to stderr. The exit status is 1 if something was found.

Examples:
  deno task soak --minutes=10
  deno task soak --minutes=2 --seed=7 --only=disk,guest
`,
  check: checkOptions,
});

export type Options = ReturnType<typeof SOAK.check>;

const DEFAULT_PLOT = new URL("../../.cache/soak.svg", import.meta.url).pathname;

function checkOptions({ values }: ToolArguments<typeof OPTIONS>) {
  return {
    ...values,
    minutes: fraction("--minutes", values.minutes, 0.1, 10_000),
    seed: values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
    only: chooseNames(values.only),
    plot: values.plot ?? DEFAULT_PLOT,
  };
}

/** The command line that does what these options say. */
export function commandOf({ minutes, seed, only }: Options): string {
  const some = only.length === NAMES.length ? "" : ` --only=${only.join(",")}`;
  return `deno task soak --minutes=${minutes} --seed=${seed}${some}`;
}

function chooseNames(text: string | undefined): readonly Name[] {
  if (text === undefined) return NAMES;
  const wanted = text.split(",");
  const unknown = wanted.find((name) => !NAMES.some((known) => known === name));
  if (unknown !== undefined) {
    throw new OptionError(`--only=${text}: expected some of ${NAMES.join(", ")}, got ${unknown}`);
  }
  return NAMES.filter((name) => wanted.includes(name));
}
