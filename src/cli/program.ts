/**
 * The command line: `vhostd <device> …` and a few commands about devices.
 *
 * Every command is a module of its own, so that starting a device loads nothing else.
 *
 * @module
 */

import type { CommandTable, DeviceCommandTable } from "./command.ts";
import type { DeviceTable } from "./devices.ts";
import { EXIT_FAILURE, EXIT_USAGE, say, tellFailure } from "./failure.ts";

/** The commands that know no device. */
export const commands: CommandTable = {
  describe: () => import("./describe_command.ts"),
  inspect: () => import("./inspect_command.ts"),
  compare: () => import("./compare_command.ts"),
  replay: () => import("./replay_command.ts"),
  metrics: () => import("./metrics_command.ts"),
  top: () => import("./top_command.ts"),
  list: () => import("./list_command.ts"),
  watch: () => import("./watch_command.ts"),
  new: () => import("./new_command.ts"),
  web: () => import("./web_command.ts"),
  completion: () => import("./completion_command.ts"),
  complete: () => import("./complete_command.ts"),
  help: () => import("./help_command.ts"),
  "--help": () => import("./help_command.ts"),
  "-h": () => import("./help_command.ts"),
  "--version": () => import("./version_command.ts"),
};

/**
 * Runs a command line.
 *
 * @param devices The devices with a name.
 * @param others Commands that belong to devices.
 * @returns The exit status.
 */
export async function runProgram(
  args: readonly string[],
  devices: DeviceTable,
  others: DeviceCommandTable = {},
): Promise<number> {
  const [name, ...rest] = args;
  const all = { ...commands, ...deviceCommands(others) };
  try {
    if (name === undefined) {
      say("Expected a device or a command; vhostd --help lists them");
      return EXIT_USAGE;
    }
    if (Object.hasOwn(all, name)) {
      return await (await all[name]()).run(rest, devices, all);
    }
    if (name.startsWith("-")) {
      const { suggestion } = await import("../virtio/nearest.ts");
      const meant = suggestion(name, Object.keys(all).filter((name) => name[0] === "-"));
      say(`Expected a device or a command first, got ${name}${meant || "; vhostd <device> …"}`);
      return EXIT_USAGE;
    }
    const { serveCommand } = await import("./serve_command.ts");
    return await serveCommand(name, rest, devices, Object.keys(all));
  } catch (error) {
    // The reader of stdout is gone
    if (error instanceof Deno.errors.BrokenPipe) return EXIT_FAILURE;
    return tellFailure(error);
  }
}

function deviceCommands(others: DeviceCommandTable): CommandTable {
  return Object.fromEntries(
    Object.entries(others).map(([name, load]) => [name, async () => {
      const { deviceCommand } = await import("./device_command.ts");
      return deviceCommand((await load()).default);
    }]),
  );
}
