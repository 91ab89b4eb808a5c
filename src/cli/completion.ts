/**
 * What a shell may offer for the word that is being typed, from the definitions of commands and
 * devices.
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

/** Something that can be offered. */
export interface Candidate {
  /** The whole word. */
  word: string;
  /** What it means. */
  about: string;
}

/** What can be offered for a word. */
export interface Completion {
  candidates: Candidate[];
  /** Whether it may be a path, after what the word has up to its `=`. */
  files: boolean;
}

/** What can follow, all of it known. */
const NOTHING: Completion = { candidates: [], files: false };

/** The longest text about a candidate. */
const ABOUT_CHARACTERS = 60;

/**
 * What can be offered for the last of the words.
 *
 * @param words What follows the program's name, up to where the cursor is.
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
    return NOTHING; // There is no such device: nothing is known of it.
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
  // A device of one's own is a path; offered once it looks like one.
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

/** A line for each candidate, its text after a tab; `:files` where a path may stand. */
export function completionLines({ candidates, files }: Completion): string {
  const lines = candidates.map(({ word, about }) => `${shown(word)}\t${briefly(shown(about))}`);
  return [...lines, ...files ? [":files"] : []].map((line) => `${line}\n`).join("");
}

function briefly(text: string): string {
  return text.length <= ABOUT_CHARACTERS ? text : `${text.slice(0, ABOUT_CHARACTERS - 1)}…`;
}
