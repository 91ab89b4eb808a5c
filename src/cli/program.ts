/**
 * The command line: `vhostd <device> …` and a few commands about devices.
 *
 * Starting a device loads what it needs and nothing else: every command is a
 * module of its own.
 *
 * @module
 */

import type { DeviceTable } from "./devices.ts";
import { EXIT_FAILURE, EXIT_USAGE, say, tellFailure } from "./failure.ts";

type Command = (args: readonly string[], devices: DeviceTable) => Promise<number>;

/** The commands that are no devices. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  describe: async () => (await import("./describe_command.ts")).describeCommand,
  inspect: async () => (await import("./inspect_command.ts")).inspectCommand,
  new: async () => (await import("./new_command.ts")).newCommand,
  list: async () => (await import("./list_command.ts")).listCommand,
  help: async () => (await import("./help_command.ts")).helpCommand,
  "--help": async () => (await import("./help_command.ts")).helpCommand,
  "-h": async () => (await import("./help_command.ts")).helpCommand,
  "--version": async () => (await import("./help_command.ts")).versionCommand,
};

/**
 * Carries out a command line.
 *
 * @param devices The devices that have a name.
 * @returns The exit status.
 */
export async function runProgram(
  args: readonly string[],
  devices: DeviceTable,
): Promise<number> {
  const [name, ...rest] = args;
  try {
    if (name === undefined) {
      say("Expected a device or a command; vhostd --help tells what there is");
      return EXIT_USAGE;
    }
    if (Object.hasOwn(commands, name)) return await (await commands[name]())(rest, devices);
    if (name.startsWith("-")) {
      const { suggestion } = await import("../virtio/nearest.ts");
      const meant = suggestion(name, Object.keys(commands).filter((name) => name[0] === "-"));
      say(`Expected a device or a command first, got ${name}${meant || "; vhostd <device> …"}`);
      return EXIT_USAGE;
    }
    const { serveCommand } = await import("./serve_command.ts");
    return await serveCommand(name, rest, devices, Object.keys(commands));
  } catch (error) {
    // Whoever read what was printed has seen enough.
    if (error instanceof Deno.errors.BrokenPipe) return EXIT_FAILURE;
    return tellFailure(error);
  }
}
