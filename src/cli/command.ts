/**
 * The modules of commands.
 *
 * @module
 */

import type { OptionValues } from "../virtio/options.ts";
import type { OptionTable } from "./arguments.ts";
import type { DeviceTable } from "./devices.ts";

/** A module of a command. */
export interface CommandModule {
  /**
   * Runs the command.
   *
   * @param devices The devices with a name.
   * @param commands All commands by their names.
   * @returns The exit status.
   */
  run(args: readonly string[], devices: DeviceTable, commands: CommandTable): Promise<number>;
  /** For completion. */
  readonly shape: CommandShape;
}

/** Commands by their names, each loaded only when it is used. */
export type CommandTable = Readonly<Record<string, () => Promise<CommandModule>>>;

/** The arguments that a command takes. */
export interface CommandShape {
  readonly options: OptionTable;
  /** Its argument beside flags. */
  readonly operand?: Operand;
}

/** An argument that is no flag: a device, a path, or one of a list. */
export type Operand = "device" | "file" | readonly string[];

/** A command that belongs to a device. */
export interface DeviceCommandDefinition {
  /** Its arguments: `overlay info|commit DELTA`. */
  readonly usage: string;
  /** What it does. */
  readonly about: string;
  readonly options: OptionTable;
  /** The words that its first operand may be; others are paths. */
  readonly actions: readonly string[];
  /**
   * Runs it.
   *
   * @param operands All of them, the action first: one of `actions`.
   * @throws {RangeError} When they are of the wrong number; the usage is shown too.
   */
  run(
    // deno-lint-ignore no-explicit-any
    values: OptionValues<any>,
    operands: readonly string[],
  ): Promise<void>;
}

/** Commands of devices by their names, each loaded only when it is used. */
export type DeviceCommandTable = Readonly<
  Record<string, () => Promise<{ default: DeviceCommandDefinition }>>
>;
