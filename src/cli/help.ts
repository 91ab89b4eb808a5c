/**
 * Help texts, made from the declared options; the command lines of commands that print them.
 *
 * @module
 */

import { shown } from "../runtime/shown.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import { flagName, type OptionDefinition } from "../virtio/options.ts";
import { type OptionTable, parseArguments, type ParsedArguments } from "./arguments.ts";
import { endpointOptions } from "./endpoint_options.ts";
import { optionsOf, sharedOptionsOf } from "./shared_options.ts";
import { wrap } from "./table.ts";
import { UsageError } from "./usage_error.ts";

/** The largest width of help: longer lines are hard to read. */
const MAX_WIDTH = 100;

/** The width of help that is not printed on a terminal. */
const PLAIN_WIDTH = 80;

/** The smallest width of a text beside flags; with less room it goes below them. */
const MIN_TEXT_WIDTH = 36;

/** The width of help on stdout. */
export function helpWidth(): number {
  if (!Deno.stdout.isTerminal()) return PLAIN_WIDTH;
  return Math.min(Math.max(Deno.consoleSize().columns, 20), MAX_WIDTH);
}

/** The help of the program. */
export function programHelp(deviceNames: readonly string[], width: number = helpWidth()): string {
  const usage: [command: string, about: string][] = [
    ["<device> --socket-path=PATH", "serve a device until SIGTERM or SIGINT"],
    ["<device> --help", "its options"],
    ["list", "the devices, one per line"],
    ["describe <device>", "its queues, feature bits and config space"],
    ["inspect PATH", "what a guest's driver did with a device"],
    ["compare A B", "what differs between two such records"],
    ["replay FILE --socket-path=PATH", "play a recorded front-end against a device"],
    ["top [PATH…]", "the busiest queues of devices, each second"],
    ["metrics [PATH…]", "the metrics of devices, for Prometheus"],
    ["web [PATH…]", "a page that shows devices while they run"],
    ["watch --qmp=PATH", "complete the records of a running QEMU's devices by its trace"],
    ["new FOLDER", "a folder with a device of your own, its test and its tasks"],
    ["overlay info|commit|rebase", "overlays of disks: vhostd blk --overlay=DELTA"],
    ["completion bash|zsh|fish", "completion for a shell"],
    ["--version", ""],
  ];
  const text = `A device is one of ${deviceNames.join(", ")}, or the path or URL of a .ts file of \
your own whose default export is a device.

Signals: SIGHUP reloads what the device serves, such as the size of an image, SIGUSR1 prints the record on stderr. \
VHOSTD_TRACE=1 prints the stack of an error.
`;
  return fill("vhostd: virtio devices in TypeScript, served to QEMU over vhost-user", width) +
    "\n\nUsage:\n" +
    columns(usage.map(([command, about]) => [`vhostd ${command}`, about]), width) +
    `\n${fill(text, width)}`;
}

/** Wraps lines at a width; indented lines stay as they are. */
function fill(text: string, width: number): string {
  return text.split("\n").map((line) =>
    line.startsWith(" ") ? line : wrap(line.split(" "), { width, indent: 0, between: " " })
  ).join("\n");
}

/** Two columns; the second is wrapped, and goes below the first if it has no room beside it. */
function columns(
  rows: readonly (readonly [string, string])[],
  width: number,
  first: number = Math.max(...rows.map(([text]) => text.length)),
): string {
  const isBeside = width - first - 4 >= MIN_TEXT_WIDTH;
  const indent = isBeside ? first + 4 : 6;
  return rows.map(([left, right]) => {
    const text = wrap(right.split(" "), { width, indent, between: " " });
    if (!isBeside && text !== "") return `  ${left}\n${" ".repeat(indent)}${text}\n`;
    return `  ${left.padEnd(first)}  ${text}`.trimEnd() + "\n";
  }).join("");
}

/** The help of a device's command. */
export function deviceHelp(device: AnyDevice, name: string, width: number = helpWidth()): string {
  const own = (device.options ?? {}) as OptionTable;
  const others = Object.fromEntries(
    Object.entries(sharedOptionsOf(device)).filter(([name]) => !(name in endpointOptions)),
  );
  const first = flagWidth(optionsOf(device));
  const lines = (options: OptionTable) => optionLines(options, width, first);
  const { instances } = device;
  const endpoint = instances === undefined
    ? [
      fill(
        `Usage: vhostd ${shown(name)} --socket-path=PATH [options]${operandText(device)}\n`,
        width,
      ),
      `${fill("Where front-ends come from, one of these, or a socket from systemd:", width)}\n${
        lines(endpointOptions)
      }`,
    ]
    : [
      fill(
        `Usage: vhostd ${shown(name)} --${flagName(instances)}=PATH … [options]\n`,
        width,
      ),
    ];
  const parts = [
    fill(`${device.name}: ${device.about} (virtio device ${device.deviceId})\n`, width),
    ...endpoint,
    ...(Object.keys(own).length > 0 ? [`The device:\n${lines(own)}`] : []),
    `Every device:\n${lines(others)}`,
  ];
  return parts.join("\n");
}

/** The operand of a device's command, for its usage. */
function operandText({ operand, options }: AnyDevice): string {
  const definition = operand === undefined ? undefined : options[operand] as OptionDefinition;
  return definition === undefined || definition.type === "flag"
    ? ""
    : ` [${definition.placeholder}]`;
}

/** The operands of commands that take control sockets, for their help. */
export const PATHS_HELP = `Each PATH is a control socket (--control-path), or a directory whose \
control sockets have names that end in .ctl and may come later; by default it is the working \
directory.`;

/** A command other than that of a device. */
export interface CommandLine {
  /** The usage, after `vhostd`; its first word is the command's name. */
  readonly usage: string;
  /** The help text before the options. */
  readonly about: string;
  readonly options: OptionTable;
  /** Its one operand in messages, such as `one device`; without it the command has none. */
  readonly operand?: string;
  /** Number of operands. @default {1} */
  readonly operands?: number | "any";
}

/**
 * Parses the arguments of a command, or prints its help.
 *
 * @returns Undefined if the help was printed.
 * @throws {UsageError} When the arguments are wrong.
 */
export function parseCommand(
  { usage, about, options, operand, operands = 1 }: CommandLine,
  args: readonly string[],
): { values: ParsedArguments["values"]; operand: string; operands: string[] } | undefined {
  const [name] = usage.split(" ");
  const { values, positional } = parseArguments(args, options, `vhostd ${name} --help`);
  if (values.help) {
    const width = helpWidth();
    const lines = [fill(about, width), fill(`Usage: vhostd ${usage}`, width)];
    console.log(`${lines.join("\n\n")}\n\n${optionLines(options, width)}`.trimEnd());
    return undefined;
  }
  if (operand === undefined && positional.length > 0) {
    throw new UsageError(`Expected nothing after ${name}, got ${positional[0]}`);
  }
  if (operand !== undefined && operands !== "any" && positional.length !== operands) {
    throw new UsageError(
      `Expected ${operand}, got ${positional.length || "none"}; vhostd ${usage}`,
    );
  }
  return { values, operand: positional[0] ?? "", operands: positional };
}

/** Lines for all options. */
export function optionLines(
  options: OptionTable,
  width: number = helpWidth(),
  first: number = flagWidth(options),
): string {
  const rows = Object.entries(options).map(([name, definition]) =>
    [flagText(name, definition), optionText(definition)] as const
  );
  return columns(rows, width, first);
}

/** The width of the flags of options. */
function flagWidth(options: OptionTable): number {
  return Math.max(
    ...Object.entries(options).map(([name, option]) => flagText(name, option).length),
  );
}

/** A flag with its placeholder: `--blk-file=PATH`. */
export function flagText(name: string, definition: OptionDefinition): string {
  const value = definition.type === "flag" ? "" : `=${definition.placeholder}`;
  return `--${flagName(name)}${value}`;
}

/** A flag up to its value: `--blk-file=`. */
export function flagStart(name: string, definition: OptionDefinition): string {
  return `--${flagName(name)}${definition.type === "flag" ? "" : "="}`;
}

/** The meaning of an option, with its possible values. */
function optionText(definition: OptionDefinition): string {
  const notes: string[] = [];
  if (definition.type === "text" && definition.choices !== undefined) {
    const { choices, placeholder } = definition;
    if (placeholder !== choices.join("|")) notes.push(choices.join(", "));
  }
  if (definition.type === "number") {
    const { unit, least, most } = definition;
    if (unit === "bytes") notes.push("bytes, or with K, M, G or T");
    const name = unit === "ms" ? " ms" : "";
    const text = unit === "bytes" ? sizeText : String;
    if (most !== undefined && most < 2 ** 31 - 1) {
      notes.push(`${text(least ?? 0)} to ${text(most)}${name}`);
    } else if (unit === "ms") notes.push("ms");
    if (definition.default !== undefined) notes.push(`default ${text(definition.default)}`);
  } else if (definition.type === "text" && definition.default !== undefined) {
    notes.push(`default ${definition.default}`);
  }
  return definition.about + (notes.length > 0 ? ` (${notes.join("; ")})` : "");
}

/** A size as a flag takes it: `64M`. */
function sizeText(bytes: number): string {
  let unit = 0;
  while (bytes > 0 && bytes % 1024 === 0 && unit < SIZE_UNITS.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${bytes}${SIZE_UNITS[unit]}`;
}

const SIZE_UNITS = ["", "K", "M", "G", "T"];
