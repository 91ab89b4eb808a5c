/** A disk of ours under a driver of ours: loaded, killed, cut off, filled up. */
import type { VirtioDriverOptions } from "../../src/frontend/mod.ts";
import { ToolError } from "../lib/tool_error.ts";
import { sleep, type World } from "./actor.ts";
import { DISK_BYTES, DiskLoad, TAIL_BYTES } from "./disk_load.ts";
import { DISTURBANCES, ServedActor } from "./served.ts";

/** The longest between two things that are done to a disk. */
const MAX_PEACE_MS = 2500;
const LEAST_PEACE_MS = 200;

/** How long storage stays in trouble at the most. */
const MAX_TROUBLE_MS = 700;

/** What becomes of the file while it is larger, in bytes. */
const GROWN_BYTES = DISK_BYTES + 2 ** 20;

export type StorageFault = "resized" | "file cut off" | "file system full";

export interface FrontendDiskOptions {
  name: string;
  /** The directory of its file; no file if it keeps nothing. */
  directory?: string;
  flags?: readonly string[];
  driver: Omit<VirtioDriverOptions, "queues">;
  queues: number;
  faults?: readonly StorageFault[];
  /** Its process is never ended on purpose, so that it can be seen to leak. */
  lives?: boolean;
}

/** A disk, its load and what is done to it. */
export class FrontendDisk extends ServedActor {
  readonly #options: FrontendDiskOptions;
  readonly #path: string | undefined;
  #load!: DiskLoad;

  constructor(world: World, options: FrontendDiskOptions) {
    const { name, directory, flags = [], driver, queues } = options;
    const path = directory && `${directory}/${name}.img`;
    const store = path === undefined ? ["--null", `--size=${DISK_BYTES}`] : [`--blk-file=${path}`];
    super(world, name, "blk", [...store, `--num-queues=${queues}`, ...flags], {
      ...driver,
      queues: new Array(queues).fill(64),
    });
    this.#options = options;
    this.#path = path;
  }

  override async start(): Promise<void> {
    if (this.#path !== undefined) {
      await Deno.writeFile(this.#path, new Uint8Array());
      await Deno.truncate(this.#path, DISK_BYTES);
    }
    await super.start();
  }

  async run(): Promise<void> {
    const { faults = [], lives, queues } = this.#options;
    const { random, world: { over } } = this;
    const load = this.#load = new DiskLoad(this, queues, this.#path === undefined);
    const disturbances = DISTURBANCES.filter((kind) =>
      !lives || kind === "reconnect" || kind === "rings stopped"
    );
    const disturb = async () => {
      if (faults.length > 0 && random.chance(1, 2)) await this.#spoil(random.pick(faults));
      else await this.disturb(random.pick(disturbances));
    };
    await Promise.race([
      Promise.all([load.run(over), this.disturbOften(LEAST_PEACE_MS, MAX_PEACE_MS, disturb)]),
      this.backend.failed,
    ]);
    await load.readAll();
    await this.end();
    if (this.#path !== undefined) await load.checkFile(this.#path);
  }

  async #spoil(fault: StorageFault): Promise<void> {
    const load = this.#load;
    this.world.fault(this.tally, fault);
    const path = this.#path!;
    const lasting = () => sleep(this.random.below(MAX_TROUBLE_MS), this.world.over);
    switch (fault) {
      case "resized":
        await this.#resize(GROWN_BYTES);
        await lasting();
        return await this.#resize(DISK_BYTES);
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

  async #resize(bytes: number): Promise<void> {
    await Deno.truncate(this.#path!, bytes);
    await this.backend.now.post("resize", null);
    const sectors = await this.driver.config.u64(0);
    if (Number(sectors) * 512 !== bytes) {
      throw new ToolError(
        `${this.tally.name} was resized to ${bytes} bytes, and says ${sectors} sectors`,
      );
    }
  }
}

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
