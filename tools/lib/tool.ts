/**
 * What every tool is: a command with declared options and help made from them, which says on stderr
 * what it does, and in one line why it failed.
 */
import { parseArguments } from "../../src/cli/arguments.ts";
import { wantsTrace } from "../../src/cli/failure.ts";
import { helpWidth, optionLines } from "../../src/cli/help.ts";
import { UsageError } from "../../src/cli/usage_error.ts";
import { shownLines } from "../../src/runtime/shown.ts";
import {
  defaultOptions,
  flagName,
  type OptionDefinition,
  OptionError,
  type OptionValues,
} from "../../src/virtio/options.ts";
import { ToolError } from "./tool_error.ts";

/** Option definitions by name; a text that may be given many times has `each`. */
type ToolOptions = Readonly<Record<string, OptionDefinition & { readonly each?: true }>>;

export interface Tool<O extends ToolOptions> {
  /** Its name: `deno task NAME` runs it. */
  name: string;
  /** What follows the name in the help. */
  usage: string;
  /** Whether there may be arguments that are no options. @default {false} */
  hasOperands?: boolean;
  /** What it does: the help text before the options. */
  about: string;
  /** The options; `--help` is added. */
  options: O;
  /** The help text after the options. */
  notes: string;
  /** The exit status after a command line that cannot be understood. @default {1} */
  usageStatus?: number;
}

export interface ToolArguments<O extends ToolOptions> {
  /** The options' values, with defaults. */
  values:
    & OptionValues<O>
    & { readonly [K in keyof O as O[K] extends { each: true } ? K : never]: readonly string[] };
  /** What is no option. */
  operands: string[];
  /** What stands behind `--`. */
  rest: string[];
  /** Whether the help is wanted. */
  isHelp: boolean;
}

const HELP = { help: { type: "flag", about: "prints this" } } as const;

/**
 * Takes a command line apart.
 *
 * @throws {UsageError | OptionError} When it cannot be understood
 */
export function parseTool<O extends ToolOptions>(
  { name, hasOperands, options }: Tool<O>,
  args: readonly string[],
): ToolArguments<O> {
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const help = `deno task ${name} --help`;
  const lists: Record<string, string[]> = {};
  const once: string[] = [];
  for (const [key, { each }] of Object.entries(options)) if (each) lists[key] = [];
  for (let i = 0; i < end; i++) {
    const [, flag, inline] = /^--([^=]+)(?:=(.*))?$/s.exec(args[i]) ?? [];
    const key = Object.keys(lists).find((key) => flagName(key) === flag);
    if (key === undefined) once.push(args[i]);
    else lists[key].push(inline ?? args[++i] ?? "");
  }
  const parsed = parseArguments(once, { ...options, ...HELP }, help);
  if (!hasOperands && parsed.positional.length > 0) {
    throw new UsageError(`Unknown argument ${parsed.positional[0]}; ${help} lists all`);
  }
  return {
    values: {
      ...defaultOptions(options),
      ...parsed.values,
      ...lists,
    } as unknown as ToolArguments<O>["values"],
    operands: parsed.positional,
    rest: args.slice(end + 1),
    isHelp: parsed.values.help === true,
  };
}

export function toolHelp({ name, usage, about, options, notes }: Tool<ToolOptions>): string {
  const lines = optionLines({ ...options, ...HELP }, helpWidth());
  return `Usage: deno task ${name} ${usage}\n\n${about}\nOptions:\n${lines}\n${notes}`.trimEnd();
}

/**
 * Reads a number that may have a fraction, which no declared option can have.
 *
 * @throws {OptionError} When it is none, or out of range
 */
export function fraction(flag: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (value >= least && value <= most) return value;
  throw new OptionError(`${flag}=${text}: expected a number from ${least} to ${most}`);
}

/** A function that prints messages on stderr, after the name of a tool. */
export function teller(tool: string): (message: string) => void {
  return (message) => console.error(`${tool}: ${shownLines(message)}`);
}

/** Whether an error's message is enough; anything else is a bug, and its stack says where. */
export function isExpected(error: unknown): error is Error {
  return error instanceof ToolError || isUsage(error) ||
    error instanceof Error && (error.name in Deno.errors || error.name === "FrontendError");
}

function isUsage(error: unknown): boolean {
  return error instanceof UsageError || error instanceof OptionError;
}

/** Runs a tool to its end, and exits with its status. */
export async function runTool<O extends ToolOptions>(
  tool: Tool<O>,
  main: (args: ToolArguments<O>) => Promise<number>,
): Promise<never> {
  try {
    const args = parseTool(tool, Deno.args);
    if (args.isHelp) console.log(toolHelp(tool));
    Deno.exit(args.isHelp ? 0 : await main(args));
  } catch (error) {
    if (!isExpected(error) || wantsTrace()) throw error;
    teller(tool.name)(error.message);
    Deno.exit(isUsage(error) ? tool.usageStatus ?? 1 : 1);
  }
}
