/**
 * Commands that belong to a device, on the command line.
 *
 * @module
 */

import type { CommandModule, DeviceCommandDefinition } from "./command.ts";
import { parseCommand } from "./help.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";

/** The command line of a device's command. */
export function deviceCommand(definition: DeviceCommandDefinition): CommandModule {
  const { usage, about, actions } = definition;
  const options = { ...definition.options, ...helpOption };
  return {
    shape: { options, operand: actions },
    async run(args) {
      const operand = `one of ${actions.join(", ")}`;
      const parsed = parseCommand({ usage, about, options, operand, operands: "any" }, args);
      if (parsed === undefined) return 0;
      const { values, operands } = parsed;
      if (!actions.includes(operands[0])) {
        throw new UsageError(`Expected ${operand}, got ${operands[0] ?? "none"}; vhostd ${usage}`);
      }
      try {
        await definition.run(values, operands);
      } catch (error) {
        if (error instanceof RangeError) throw new UsageError(`${error.message}; vhostd ${usage}`);
        throw error;
      }
      return 0;
    },
  };
}
