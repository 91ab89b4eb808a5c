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

export interface Tool<O extends ToolOptions, C> {
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
  /** Checks what the options' own declarations cannot; returns what the tool works with. */
  check(args: ToolArguments<O>): C;
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
}

const HELP = { help: { type: "flag", about: "prints this" } } as const;

/** Declares a tool. */
export function defineTool<O extends ToolOptions, C>(tool: Tool<O, C>): Tool<O, C> {
  return tool;
}

/** What a tool works with after a command line. */
export function parseTool<O extends ToolOptions, C>(tool: Tool<O, C>, args: readonly string[]): C {
  return tool.check(takeApart(tool, args)!);
}

/** Takes a command line apart; nothing where the help is wanted. */
function takeApart<O extends ToolOptions, C>(
  { name, hasOperands, options }: Tool<O, C>,
  args: readonly string[],
): ToolArguments<O> | undefined {
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
  if (parsed.values.help === true) return undefined;
  const values = { ...defaultOptions(options), ...parsed.values, ...lists } as unknown;
  return {
    values: values as ToolArguments<O>["values"],
    operands: parsed.positional,
    rest: args.slice(end + 1),
  };
}

function helpOf<O extends ToolOptions, C>({ name, usage, about, options, notes }: Tool<O, C>) {
  const lines = optionLines({ ...options, ...HELP }, helpWidth());
  return `Usage: deno task ${name} ${usage}\n\n${about}\nOptions:\n${lines}\n${notes}`.trimEnd();
}

/** Reads a number that may have a fraction, which no declared option can have. */
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
    error instanceof Error &&
      (error.name in Deno.errors || ["FrontendError", "QmpError"].includes(error.name));
}

function isUsage(error: unknown): boolean {
  return error instanceof UsageError || error instanceof OptionError;
}

/** Runs a tool to its end, and exits with its status. */
export async function runTool<O extends ToolOptions, C>(
  tool: Tool<O, C>,
  main: (checked: C) => Promise<number>,
): Promise<never> {
  try {
    const args = takeApart(tool, Deno.args);
    if (args === undefined) console.log(helpOf(tool));
    Deno.exit(args === undefined ? 0 : await main(tool.check(args)));
  } catch (error) {
    if (!isExpected(error) || wantsTrace()) throw error;
    teller(tool.name)(error.message);
    Deno.exit(isUsage(error) ? tool.usageStatus ?? 1 : 1);
  }
}
