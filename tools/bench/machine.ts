/** The machine that was measured. */
import { run } from "../lib/process.ts";
import { version } from "../../src/cli/version.ts";
import type { Options } from "./options.ts";
import { peers } from "./sides.ts";
import { ToolError } from "../lib/tool_error.ts";

/** What figures depend on. */
export interface Machine {
  processor: string;
  cores: number;
  memoryBytes: number;
  kernel: string;
  /** What the disk's file is on, such as `ext4 on /dev/vda`. */
  disk: string;
  /** Load average of the minute before: what else was running. */
  loadAverage: number;
  versions: { vhostd: string; deno: string; v8: string; peers: string[] };
}

export async function describeMachine({ diskDir }: Options): Promise<Machine> {
  const processor = Deno.readTextFileSync("/proc/cpuinfo").match(/^model name\s*: (.*)$/m)?.[1];
  return {
    processor: processor ?? Deno.build.arch,
    cores: navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().total,
    kernel: `Linux ${Deno.osRelease()}`,
    disk: (await fileSystemOf(diskDir)).join(" on "),
    loadAverage: Deno.loadavg()[0],
    versions: {
      vhostd: await version(),
      deno: Deno.version.deno,
      v8: Deno.version.v8,
      peers: (await peers()).map(({ version }) => version),
    },
  };
}

/** The type of file system of a directory, and its device. */
async function fileSystemOf(directory: string): Promise<[type: string, device: string]> {
  const output = await run("df", ["--output=fstype,source", directory]);
  const [type, device] = output.trim().split("\n")[1].split(/\s+/);
  return [type, device];
}

/** Makes sure that directories are on what they have to be on. */
export async function checkDirectories(options: Options): Promise<void> {
  const { tmpfsDir, diskDir, cells } = options;
  const [tmpfs] = await fileSystemOf(tmpfsDir);
  if (tmpfs !== "tmpfs" && cells.some(({ store }) => store === "tmpfs")) {
    throw new ToolError(`Expected ${tmpfsDir} to be tmpfs, got ${tmpfs}; give --tmpfs-dir`);
  }
  const [disk] = await fileSystemOf(diskDir);
  if (["tmpfs", "ramfs"].includes(disk) && cells.some(({ store }) => store.startsWith("disk"))) {
    throw new ToolError(`Expected ${diskDir} on a disk, got ${disk}; give --disk-dir`);
  }
}
