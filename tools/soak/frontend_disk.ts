/** A disk of ours under a driver of ours: loaded, killed, cut off, filled up. */
import type { VirtioDriverOptions } from "../../src/frontend/mod.ts";
import type { Random } from "../lib/random.ts";
import { type Actor, sleep, type World } from "./actor.ts";
import { DISK_BYTES, DiskLoad, TAIL_BYTES } from "./disk_load.ts";
import { DISTURBANCES, Served } from "./served.ts";
import { Tally } from "./tally.ts";
import { ToolError } from "../lib/tool_error.ts";

/** The longest between two things that are done to a disk. */
const MAX_PEACE_MS = 2500;
const LEAST_PEACE_MS = 200;

/** How long storage stays in trouble at the most. */
const MAX_TROUBLE_MS = 700;

/** What becomes of the file while it is larger, in bytes. */
const GROWN_BYTES = DISK_BYTES + 2 ** 20;

/** What is done to storage. */
export type StorageFault = "resized" | "file cut off" | "file system full";

/** A disk and what may be done to it. */
export interface FrontendDiskOptions {
  name: string;
  /** The directory of its file; no file if it keeps nothing. */
  directory?: string;
  /** More flags of the device. */
  flags: readonly string[];
  driver: Omit<VirtioDriverOptions, "queues">;
  queues: number;
  faults: readonly StorageFault[];
  /** Its process is never ended on purpose, so that it can be seen to leak. */
  lives: boolean;
}

/** A disk, its load and what is done to it. */
export class FrontendDisk implements Actor {
  readonly tally: Tally;
  readonly #world: World;
  readonly #options: FrontendDiskOptions;
  readonly #random: Random;
  readonly #path: string | undefined;
  readonly #made = new AsyncDisposableStack();
  #served!: Served;

  /** Nothing is started yet. */
  constructor(world: World, options: FrontendDiskOptions) {
    this.tally = new Tally(options.name);
    this.#world = world;
    this.#options = options;
    this.#random = world.random(options.name);
    this.#path = options.directory && `${options.directory}/${options.name}.img`;
  }

  async start(): Promise<void> {
    const { flags, queues, driver, directory } = this.#options;
    if (this.#path !== undefined) {
      await Deno.writeFile(this.#path, new Uint8Array());
      await Deno.truncate(this.#path, DISK_BYTES);
    }
    const store = directory === undefined
      ? ["--null", `--size=${DISK_BYTES}`]
      : [`--blk-file=${this.#path}`];
    this.#served = this.#made.use(
      await Served.start(
        this.#world,
        this.tally,
        "blk",
        [...store, `--num-queues=${queues}`, ...flags],
        { ...driver, queues: new Array(queues).fill(64) },
      ),
    );
  }

  async run(): Promise<void> {
    const served = this.#served;
    const load = new DiskLoad(this.#world, served, this.tally, {
      queues: this.#options.queues,
      keepsNothing: this.#path === undefined,
    });
    const ended = new AbortController();
    const { over } = this.#world;
    over.addEventListener("abort", () => ended.abort());
    try {
      const faults = this.#disturb(served, load, ended.signal);
      await Promise.race([Promise.all([load.run(over), faults]), served.backend.failed]);
    } finally {
      ended.abort();
    }
    await load.readAll();
    await served.end();
    if (this.#path !== undefined) await load.checkFile(this.#path);
  }

  async #disturb(served: Served, load: DiskLoad, over: AbortSignal): Promise<void> {
    const random = this.#random;
    const { faults, lives } = this.#options;
    const disturbances = DISTURBANCES.filter((kind) =>
      !lives || kind === "reconnect" || kind === "rings stopped"
    );
    for (;;) {
      await sleep(random.between(LEAST_PEACE_MS, MAX_PEACE_MS), over);
      if (over.aborted) return;
      if (faults.length === 0 || random.chance(1, 2)) {
        await served.disturb(random.pick(disturbances));
      } else {
        await this.#spoil(random.pick(faults), served, load, over);
      }
    }
  }

  async #spoil(
    fault: StorageFault,
    served: Served,
    load: DiskLoad,
    over: AbortSignal,
  ): Promise<void> {
    this.#world.fault(this.tally, fault);
    const path = this.#path!;
    const lasting = () => sleep(this.#random.below(MAX_TROUBLE_MS), over);
    switch (fault) {
      case "resized":
        await this.#resize(served, GROWN_BYTES);
        await lasting();
        return await this.#resize(served, DISK_BYTES);
      case "file cut off":
        load.cut.begin();
        await Deno.truncate(path, TAIL_BYTES);
        await lasting();
        await Deno.truncate(path, DISK_BYTES);
        load.loseTail();
        return load.cut.end();
      case "file system full": {
        const filler = `${this.#options.directory}/filler`;
        load.full.begin();
        await fill(filler);
        await lasting();
        await Deno.remove(filler);
        return load.full.end();
      }
    }
  }

  async #resize(served: Served, bytes: number): Promise<void> {
    await Deno.truncate(this.#path!, bytes);
    await served.backend.now.post("resize", null);
    const sectors = await served.driver.config.u64(0);
    if (Number(sectors) * 512 !== bytes) {
      throw new ToolError(
        `${this.tally.name} was resized to ${bytes} bytes, and says ${sectors} sectors`,
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#made.disposeAsync();
  }
}

/** Fills a file system up. */
async function fill(path: string): Promise<void> {
  using file = await Deno.create(path);
  for (let bytes = 2 ** 20; bytes >= 4096; bytes /= 16) {
    const zeroes = new Uint8Array(bytes);
    try {
      for (;;) await file.write(zeroes);
    } catch (error) {
      if ((error as { code?: string }).code !== "ENOSPC") throw error;
    }
  }
}
