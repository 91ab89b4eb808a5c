/**
 * What a command of the command line is made of.
 *
 * @module
 */

import type { OptionTable } from "./arguments.ts";
import type { DeviceTable } from "./devices.ts";

/** A module of a command. */
export interface CommandModule {
  /**
   * Carries it out.
   *
   * @param devices The devices that have a name.
   * @param commands All commands by their names.
   * @returns The exit status.
   */
  run(args: readonly string[], devices: DeviceTable, commands: CommandTable): Promise<number>;
  /** What may follow it. */
  readonly shape: CommandShape;
}

/** Commands by their names, each loaded only when it is used. */
export type CommandTable = Readonly<Record<string, () => Promise<CommandModule>>>;

/** What may follow a command. */
export interface CommandShape {
  readonly options: OptionTable;
  /** What it is given beside flags. */
  readonly operand?: Operand;
}

/** What a word that is no flag may be: one of some, a device, or a path. */
export type Operand = "device" | "file" | readonly string[];
