/** `deno task test`: every test of the project, by default three processes at a time. */
import { UsageError } from "../src/cli/usage_error.ts";
import { debianImage } from "../tests/guest/lib/debian_image.ts";
import { libvirtPackages } from "../tests/guest/lib/libvirt.ts";
import { bootFiles } from "./guest/guest.ts";
import { programImage } from "./guest/program_image.ts";
import {
  cephDirectory,
  networkProgram,
  programPath,
  QEMU_VERSIONS,
  qemuOfVersion,
} from "./guest/programs.ts";
import { chromiumPackages } from "./lib/chromium.ts";
import { defineTool, runTool, teller, type ToolArguments } from "./lib/tool.ts";
import { ToolError } from "./lib/tool_error.ts";

const OPTIONS = {
  jobs: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 16,
    default: 3,
    about: "run N test files at a time",
  },
} as const;

const TEST = defineTool({
  name: "test",
  usage: "[LAYER...] [-- DENO TEST ARGUMENTS]",
  hasOperands: true,
  about: "Runs the tests: all layers (unit, doc, frontend, guest), or some.\n",
  options: OPTIONS,
  notes: `\
The last line is "N passed, N failed"; the exit status is 0 only if nothing
failed and something ran.

Examples:
  deno task test unit frontend
  deno task test guest -- --filter=resize
`,
  usageStatus: 2,
  check: checkLayers,
});

function checkLayers({ operands, rest, values }: ToolArguments<typeof OPTIONS>) {
  const unknown = operands.find((name) => !(name in LAYERS));
  if (unknown !== undefined) {
    throw new UsageError(
      `expected layers (${Object.keys(LAYERS).join(", ")}), got ${JSON.stringify(unknown)}`,
    );
  }
  return { operands, rest, ...values };
}

const tell = teller("test");

/** Downloads or makes something where it is missing. */
type Fetch = () => Promise<unknown>;

/** A layer: what runs, and what has to be on the machine for it. */
interface Layer {
  about: string;
  args: string[];
  /** Where its test files are, each of which is a piece of work. */
  directory?: string;
  /** What all of its tests need. */
  needs?: Fetch[];
  /** What some need, in about their order: they fetch it themselves where it is not there by then. */
  uses?: Fetch[];
}

const LAYERS: Record<string, Layer> = {
  unit: { about: "pure code, no I/O", args: ["tests/unit.ts"] },
  doc: {
    about: "the examples in doc comments",
    args: ["--doc", "mod.ts", "src/", "backends/"],
  },
  frontend: {
    about: "real sockets, the TypeScript front-end",
    args: [],
    directory: "tests/frontend",
    uses: [
      () => programPath("qemu-storage-daemon"),
      () => programPath("nbdkit"),
      cephDirectory,
      () => programPath("promtool"),
      () => programPath("tshark"),
      () => programPath("passt"),
      () => networkProgram("dpdk-testpmd"),
      () => qemuOfVersion("11.1", "qemu-storage-daemon"),
      chromiumPackages,
    ],
  },
  guest: {
    about: "real QEMU, real Linux",
    args: [],
    directory: "tests/guest",
    needs: [
      () => programPath("qemu-system-x86_64"),
      () => programPath("mke2fs"),
      () => bootFiles({}),
    ],
    // Their last begins first.
    uses: [
      ...QEMU_VERSIONS.map((version) => () => qemuOfVersion(version)),
      () => programPath("passt"),
      () => programImage("iperf3", "ethtool"),
      libvirtPackages,
      () => programImage("fio"),
      cephDirectory,
      debianImage,
      () => bootFiles({ isKernelNewer: true }),
    ],
  },
};

/** What the sanitizer of resources needs: see there. */
const PRELOAD = new URL("../tests/preload.ts", import.meta.url).pathname;

/** What one process of `deno test` runs, for a layer. */
interface Piece {
  name: string;
  args: string[];
}

interface Outcome {
  passed: number;
  failed: number;
  /** What failed and how, to be told where a long run's output ends. */
  failures: string[];
  /** The names of those that this machine cannot run; they say why. */
  skipped: string[];
}

function noOutcome(): Outcome {
  return { passed: 0, failed: 0, failures: [], skipped: [] };
}

function add({ passed, failed, failures, skipped }: Outcome, to: Outcome): void {
  to.passed += passed;
  to.failed += failed;
  to.failures.push(...failures);
  to.skipped.push(...skipped);
}

/** Runs tests and counts them, from Deno's report. */
async function runTests(args: string[]): Promise<{ outcome: Outcome; output: Uint8Array[] }> {
  // Theirs too: what tests leave behind, also by their failure, ends with them.
  const directory = await Deno.makeTempDir({ prefix: "vhostd-" });
  await Deno.chmod(directory, 0o755); // some tests run programs as another user
  const report = `${directory}/report.xml`;
  try {
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["test", "--allow-all", "--quiet", `--junit-path=${report}`],
        ...["--sanitize-resources", `--preload=${PRELOAD}`],
        // Each mapping of memory has V8 begin to mark the heap, of which the runner's is 84 MB.
        "--v8-flags=--no-incremental-marking",
        // `deno check --doc` does that once for all; here each thread that a test starts would wait
        // for it.
        "--no-check",
        ...args,
      ],
      env: { TMPDIR: directory },
      stdin: "null",
    }).output();
    const outcome = readReport(await Deno.readTextFile(report));
    // A file that does not even load fails without a test to count.
    if (!success && outcome.failed === 0) {
      outcome.failed = 1;
      outcome.failures.push(`${args.join(" ")}\n${tail(new TextDecoder().decode(stderr))}`);
    }
    return { outcome, output: [stdout, stderr] };
  } finally {
    await Deno.remove(directory, { recursive: true })
      .catch(({ message }) => tell(`${directory} stays: ${message}`));
  }
}

/** The test files of a directory, in the order of their names. */
function testFiles(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => `${directory}/${name}`)
    .filter((path) => path.endsWith("_test.ts")).sort();
}

function writeAll(output: Uint8Array): void {
  for (let at = 0; at < output.length;) at += Deno.stdout.writeSync(output.subarray(at));
}

function readReport(xml: string): Outcome {
  const suites = xml.match(/<testsuite .*?>/g) ?? [];
  const sum = (attribute: string) =>
    suites.reduce((total, suite) => {
      const [, count = "0"] = suite.match(new RegExp(` ${attribute}="(\\d+)"`)) ?? [];
      return total + Number(count);
    }, 0);
  const failed = sum("failures") + sum("errors");
  const skipped = [...xml.matchAll(/<testcase name="([^"]*)"[^>]*>\s*<skipped/g)]
    .map(([, name]) => unescape(name));
  const failures = [...xml.matchAll(
    /<testcase name="([^"]*)" classname="([^"]*)"[^>]*>\s*<failure[^>]*>([^<]*)/g,
  )].map((parts) => parts.slice(1).map(unescape))
    .map(([name, file, error]) => `${file}: ${name}\n${tail(error)}`);
  return { passed: sum("tests") - failed - sum("disabled"), failed, failures, skipped };
}

/** The end of a text that may be long, indented. */
function tail(text: string): string {
  return text.trimEnd().split("\n").slice(-MOST_LINES).map((line) => `    ${line}`).join("\n");
}

const MOST_LINES = 40;

/** A text that an attribute of XML holds. */
function unescape(text: string): string {
  const characters: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(\w+);/g, (all, name: string) => characters[name] ?? all);
}

/** Fetches one after the other; where that fails, the tests that need it say so. */
async function fetchAll(fetches: readonly Fetch[] = []): Promise<void> {
  for (const fetch of fetches) {
    try {
      await fetch();
    } catch (error) {
      if (!(error instanceof ToolError)) throw error;
      tell(error.message);
    }
  }
}

async function main({ operands, rest, jobs }: ReturnType<typeof checkLayers>): Promise<number> {
  const start = performance.now();
  const layers = Object.entries(LAYERS).filter(([name]) =>
    operands.length === 0 || operands.includes(name)
  );
  /** Layers of which everything is there that all of their tests need. */
  const ready = new Set<string>();
  const needs = Object.fromEntries(
    layers.map(([name, { needs }]) => [name, fetchAll(needs).then(() => void ready.add(name))]),
  );
  // Deno's arguments choose tests, so most of this is not used.
  const fetching = rest.length > 0
    ? []
    : layers.map(([name, { uses }]) => needs[name].then(() => fetchAll(uses)));
  const pieces = layers.flatMap(([name, layer]): Piece[] => {
    const { args, directory } = layer;
    if (directory === undefined) return [{ name, args }];
    return testFiles(directory).map((file) => ({ name, args: [...args, file] }));
  });
  const outcomes = Object.fromEntries(layers.map(([name]) => [name, noOutcome()]));
  /** Guests leave processors idle: some of the workers begin with them, the others with the rest. */
  const work = async (beginsWithGuests: boolean) => {
    while (pieces.length > 0) {
      const isLast = beginsWithGuests && ready.has(pieces.at(-1)!.name);
      const { name, args } = (isLast ? pieces.pop() : pieces.shift())!;
      await needs[name];
      const started = performance.now();
      const { outcome, output } = await runTests([...args, ...rest]);
      add(outcome, outcomes[name]);
      const [took, seconds] = [started, start].map((at) =>
        Math.round((performance.now() - at) / 1000)
      );
      console.log(`\n# ${name}: ${LAYERS[name].about}, in ${took} s, ${seconds} s after the start`);
      output.forEach(writeAll);
    }
  };
  await Promise.all(Array.from({ length: jobs }, (_, i) => work(i % 2 !== 0)));
  await Promise.all(fetching);

  const total = noOutcome();
  console.log();
  for (const [name, outcome] of Object.entries(outcomes)) {
    add(outcome, total);
    console.log(`# ${name}: ${outcome.passed} passed, ${outcome.failed} failed`);
  }
  if (total.skipped.length > 0 && !rest.some((argument) => argument.startsWith("--filter"))) {
    console.log(`\n# not run on this machine:\n#   ${total.skipped.join("\n#   ")}`);
  }
  if (total.failures.length > 0) console.log(`\n# failed:\n\n${total.failures.join("\n\n")}`);
  console.log(`\n${total.passed} passed, ${total.failed} failed`);
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

if (import.meta.main) await runTool(TEST, main);
