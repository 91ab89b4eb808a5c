/**
 * Parses command line arguments by the declarations of options.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { flagName, type OptionDefinition, parseOption } from "../virtio/options.ts";
import { suggestion } from "../virtio/nearest.ts";
import { UsageError } from "./usage_error.ts";

/** Option definitions by name. */
export type OptionTable = Readonly<Record<string, OptionDefinition>>;

/** Parsed arguments. */
export interface ParsedArguments {
  /** The values of the given options, by name. */
  values: Record<string, string | number | boolean>;
  /** The values of the option that may be given several times. */
  repeated: string[];
  /** The arguments that are no options. */
  positional: string[];
}

/**
 * Parses arguments.
 *
 * @param help The command that lists the options, for messages.
 * @param repeatable The name of a text option that may be given several times.
 * @throws {UsageError} When a flag is unknown, given twice or lacks its value.
 * @throws {OptionError} When an option does not take the value.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseArguments } from "./arguments.ts";
 *
 * const options = {
 *   blkFile: { type: "text", placeholder: "PATH", about: "The image" },
 *   readOnly: { type: "flag", about: "Refuse writes" },
 * } as const;
 * assertEquals(
 *   parseArguments(["--blk-file", "a.img", "--read-only"], options, "vhostd blk --help").values,
 *   { blkFile: "a.img", readOnly: true },
 * );
 * ```
 */
export function parseArguments(
  args: readonly string[],
  options: OptionTable,
  help: string,
  repeatable?: string,
): ParsedArguments {
  const byFlag = new Map(Object.keys(options).map((name) => [flagName(name), name]));
  const flags = [...byFlag.keys()];
  const split: Record<string, unknown> = parseArgs(withValues(args, options, byFlag), {
    string: [...flags, "_"],
    collect: flags,
    "--": true,
    unknown(arg: string, key?: string) {
      if (key === undefined) return true;
      const flag = arg.split("=")[0];
      const meant = suggestion(flag.replace(/^-+/, ""), flags, "--");
      throw new UsageError(`Unknown flag ${flag}${meant || `; ${help} lists all`}`);
    },
  });
  const values: ParsedArguments["values"] = {};
  let repeated: string[] = [];
  for (const [flag, name] of byFlag) {
    const [text, again] = split[flag] as string[];
    if (text === undefined) continue;
    if (name === repeatable) {
      repeated = split[flag] as string[];
      continue;
    }
    if (again !== undefined) {
      throw new UsageError(
        `Expected --${flag} once, got ${text} and ${again}; remove one of them`,
      );
    }
    values[name] = parseOption(name, options[name], text);
  }
  return { values, repeated, positional: [...split._ as string[], ...split["--"] as string[]] };
}

/**
 * Joins every known flag and its value by `=`. The next argument is the value only if the flag
 * takes one, which only the declaration tells, and if it is no flag.
 */
function withValues(
  args: readonly string[],
  options: OptionTable,
  byFlag: ReadonlyMap<string, string>,
): string[] {
  const result: string[] = [];
  for (let i = 0; i < args.length; i++) {
    if (args[i] === "--") return [...result, ...args.slice(i)];
    const [, flag, inline] = /^--([^=]+)(?:=(.*))?$/s.exec(args[i]) ?? [];
    const name = byFlag.get(flag);
    if (name === undefined) {
      result.push(args[i] === "-h" && byFlag.has("help") ? "--help=true" : args[i]);
      continue;
    }
    const definition = options[name];
    if (definition.type === "flag") {
      result.push(`--${flag}=${inline || "true"}`);
      continue;
    }
    const value = inline ?? (args[i + 1]?.startsWith("--") ? undefined : args[++i]);
    if (value === undefined || value === "") {
      throw new UsageError(
        `Expected a value after --${flag}, got none; write --${flag}=${definition.placeholder}`,
      );
    }
    result.push(`--${flag}=${value}`);
  }
  return result;
}
