/** A soak from its beginning to its end. */
import { mix, Random } from "../lib/random.ts";
import { mountTmpfs, Scratch } from "../lib/scratch.ts";
import { type Actor, type Mark, type Tally, total, type World } from "./actor.ts";
import { DISK_BYTES } from "./disk_load.ts";
import { FrontendDisk } from "./frontend_disk.ts";
import { FrontendInput } from "./frontend_input.ts";
import { FrontendNet } from "./frontend_net.ts";
import { FrontendRng } from "./frontend_rng.ts";
import { GUEST_DISK_BYTES } from "./guest_disk.ts";
import { commandOf, type Name, type Options } from "./options.ts";
import { findLeaks, ProcessTable } from "./processes.ts";
import { RealGuest } from "./real_guest.ts";
import type { Moment, Report } from "./report.ts";

/** How often all processes are looked at. */
const SAMPLE_MS = 1000;

const PROGRESS_MS = 10_000;

/** A tmpfs has room for its disks, and little more. */
const TMPFS_BYTES = DISK_BYTES + GUEST_DISK_BYTES + 4 * 2 ** 20;

/** Runs a soak; `interrupted` ends it early, without the last looks at everything. */
export async function soak(
  options: Options,
  progress: (message: string) => void,
  interrupted: AbortSignal,
): Promise<Report> {
  await using made = new AsyncDisposableStack();
  const scratch = made.use(new Scratch("vhostd-soak-"));
  const directory = scratch.directory();
  const disk = scratch.directory(options.diskDir);
  const tmpfs = scratch.directory(options.tmpfsDir);
  const mounted = await mountTmpfs(tmpfs, TMPFS_BYTES);
  if (mounted === undefined) progress("no right to mount a tmpfs, so none will be full");
  else scratch.defer(mounted);

  const stop = new AbortController();
  // Until all has started, nothing is measured.
  let begun = 0, hasBegun = false;
  const nowS = () => (performance.now() - begun) / 1000;
  const marks: Mark[] = [];
  const world: World = {
    directory,
    processes: new ProcessTable(),
    over: AbortSignal.any([stop.signal, interrupted]),
    random: (name) => new Random(options.seed ^ hash(name)),
    fault(tally, kind) {
      tally.fault(kind);
      marks.push({ atS: nowS(), kind });
    },
  };
  world.processes.add("soak", Deno.pid);
  const actors = makeActors(options.only, world, { disk, tmpfs, canFill: mounted !== undefined })
    .map((actor) => made.use(actor));
  const tallies = actors.map(({ tally }) => tally);

  const moments: Moment[] = [];
  const sampling = setInterval(() => {
    if (!hasBegun) return;
    world.processes.sample(nowS());
    moments.push(momentOf(nowS(), tallies, world.processes));
  }, SAMPLE_MS);
  const telling = setInterval(
    () => hasBegun && progress(lineOf(nowS(), options.minutes * 60, tallies)),
    PROGRESS_MS,
  );
  let timer: ReturnType<typeof setTimeout> | undefined;
  const findings: string[] = [];
  const { promise: interruption, resolve: interrupt } = Promise.withResolvers<void>();
  interrupted.addEventListener("abort", () => interrupt());
  const all = (work: (actor: Actor) => Promise<void>) =>
    Promise.all(actors.map(async (actor) => {
      try {
        await Promise.race([work(actor), interruption]);
      } catch (error) {
        // What comes after the first is most often its consequence.
        findings.push(`${actor.tally.name}: ${(error as Error).message}`);
        stop.abort();
      }
    }));
  try {
    progress(`starting ${options.only.join(", ")}`);
    await all((actor) => actor.start());
    progress("all have started");
    begun = performance.now();
    timer = setTimeout(() => stop.abort(), options.minutes * 60_000);
    hasBegun = findings.length === 0 && !interrupted.aborted;
    if (hasBegun) await all((actor) => actor.run());
  } finally {
    clearInterval(sampling);
    clearInterval(telling);
    clearTimeout(timer);
  }
  if (findings.length === 0) findings.push(...findLeaks(world.processes.all));
  return {
    version: 1,
    date: new Date().toISOString(),
    seed: options.seed,
    command: commandOf(options),
    seconds: nowS(),
    tallies,
    moments,
    marks,
    processes: world.processes.all,
    findings,
  };
}

function makeActors(
  names: readonly Name[],
  world: World,
  { disk, tmpfs, canFill }: { disk: string; tmpfs: string; canFill: boolean },
): Actor[] {
  const make: Record<Name, () => Actor> = {
    tmpfs: () =>
      new FrontendDisk(world, {
        name: "tmpfs",
        directory: tmpfs,
        driver: { packed: true },
        queues: 2,
        faults: canFill ? ["file system full", "resized"] : ["resized"],
      }),
    disk: () =>
      new FrontendDisk(world, {
        name: "disk",
        directory: disk,
        flags: ["--cache=none", "--threads=2"],
        driver: { packed: false },
        queues: 2,
        faults: ["file cut off", "resized"],
        lives: true,
      }),
    null: () =>
      new FrontendDisk(world, {
        name: "null",
        flags: ["--poll-us=20"],
        driver: { packed: false, inOrder: true },
        queues: 1,
      }),
    rng: () => new FrontendRng(world),
    input: () => new FrontendInput(world),
    net: () => new FrontendNet(world),
    guest: () => new RealGuest(world, [tmpfs, disk]),
  };
  return names.map((name) => make[name]());
}

function momentOf(atS: number, tallies: readonly Tally[], { all }: ProcessTable): Moment {
  // What has just begun has no sample yet.
  const latest = all.filter(({ hasEnded }) => !hasEnded)
    .flatMap(({ samples }) => samples.slice(-1));
  return {
    atS,
    requests: total(tallies, ({ requests }) => requests),
    residentBytes: total(latest, ({ residentBytes }) => residentBytes),
    fds: total(latest, ({ fds }) => fds),
    threads: total(latest, ({ threads }) => threads),
  };
}

function lineOf(atS: number, seconds: number, tallies: readonly Tally[]): string {
  const requests = total(tallies, ({ requests }) => requests);
  const mib = total(tallies, ({ checkedBytes }) => checkedBytes) / 2 ** 20;
  const faults = total(tallies, ({ faultCount }) => faultCount);
  return `${atS.toFixed(0)} of ${seconds.toFixed(0)} s, ${requests} requests, ` +
    `${mib.toFixed(0)} MiB checked, ${faults} faults`;
}

/** A number for a name. */
function hash(name: string): number {
  let state = 0;
  for (const byte of new TextEncoder().encode(name)) state = mix(state ^ byte);
  return state;
}
