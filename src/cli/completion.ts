/**
 * Finds completions of a word from the definitions of commands and devices.
 *
 * @module
 */

import { shown } from "../runtime/shown.ts";
import type { OptionDefinition } from "../virtio/options.ts";
import type { OptionTable } from "./arguments.ts";
import type { CommandTable, Operand } from "./command.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import { flagStart } from "./help.ts";
import { optionsOf } from "./shared_options.ts";

/** A possible word. */
export interface Candidate {
  /** The whole word. */
  word: string;
  /** Its meaning. */
  about: string;
}

/** The completions of a word. */
export interface Completion {
  candidates: Candidate[];
  /** Whether the word, or its part after `=`, may be a path. */
  files: boolean;
}

const NOTHING: Completion = { candidates: [], files: false };

/** The longest description of a candidate. */
const ABOUT_CHARACTERS = 60;

/**
 * Finds the completions of the last of the words.
 *
 * @param words The words after the program's name, up to the cursor.
 */
export async function complete(
  words: readonly string[],
  commands: CommandTable,
  devices: DeviceTable,
): Promise<Completion> {
  const [name, ...rest] = words;
  if (rest.length === 0) return await firstWords(name ?? "", commands, devices);
  const typed = rest[rest.length - 1];
  try {
    const { options, operand } = Object.hasOwn(commands, name)
      ? (await commands[name]()).shape
      : { options: optionsOf(await loadDevice(devices, name)) };
    if (!typed.startsWith("-")) return await operands(typed, operand, devices);
    const given = new Set(rest.slice(0, -1).map((word) => word.split("=")[0]));
    return flags(typed, options, given);
  } catch {
    return NOTHING; // There is no such device
  }
}

async function firstWords(
  typed: string,
  commands: CommandTable,
  devices: DeviceTable,
): Promise<Completion> {
  const names = Object.keys(commands).filter((name) => name[0] !== "-" || typed[0] === "-");
  const { candidates } = await operands(typed, "device", devices);
  const offered = [...candidates, ...names.map((word) => ({ word, about: "" }))];
  // The path of a device's module, as soon as the word looks like a path
  return { candidates: startingWith(typed, offered), files: /[./]/.test(typed) };
}

async function operands(
  typed: string,
  operand: Operand | undefined,
  devices: DeviceTable,
): Promise<Completion> {
  if (operand === undefined) return NOTHING;
  if (operand === "file") return { candidates: [], files: true };
  if (operand !== "device") {
    return {
      ...NOTHING,
      candidates: startingWith(typed, operand.map((word) => ({ word, about: "" }))),
    };
  }
  const candidates = await Promise.all(
    Object.entries(devices).map(async ([word, load]) => ({
      word,
      about: (await load()).default.about,
    })),
  );
  return { candidates: startingWith(typed, candidates), files: /[./]/.test(typed) };
}

function flags(typed: string, options: OptionTable, given: ReadonlySet<string>): Completion {
  const [flag, value] = typed.split(/=(.*)/s, 2);
  if (value !== undefined) {
    const option = Object.entries(options).find(([name, option]) =>
      flagStart(name, option) === `${flag}=`
    )?.[1];
    return values(flag, value, option);
  }
  const candidates = Object.entries(options).map(([name, option]) => ({
    word: flagStart(name, option),
    about: option.about,
  })).filter(({ word }) => !given.has(word.replace(/=$/, "")));
  return { candidates: startingWith(typed, candidates), files: false };
}

function values(flag: string, value: string, option: OptionDefinition | undefined): Completion {
  if (option?.type !== "text") return NOTHING;
  if (option.choices !== undefined) {
    const candidates = option.choices.map((choice) => ({ word: `${flag}=${choice}`, about: "" }));
    return { candidates: startingWith(`${flag}=${value}`, candidates), files: false };
  }
  return { candidates: [], files: /PATH|FILE|IMAGE/.test(option.placeholder) };
}

function startingWith(typed: string, candidates: readonly Candidate[]): Candidate[] {
  return candidates.filter(({ word }) => word.startsWith(typed));
}

/** A line per candidate, with its description after a tab; `:files` if a path is possible. */
export function completionLines({ candidates, files }: Completion): string {
  const lines = candidates.map(({ word, about }) => `${shown(word)}\t${briefly(shown(about))}`);
  return [...lines, ...files ? [":files"] : []].map((line) => `${line}\n`).join("");
}

function briefly(text: string): string {
  return text.length <= ABOUT_CHARACTERS ? text : `${text.slice(0, ABOUT_CHARACTERS - 1)}…`;
}
