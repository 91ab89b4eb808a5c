/**
 * Options of devices: declared once, typed for the device, parsed by the command line.
 *
 * @module
 */

/** The common part of options. */
export interface OptionBase {
  /** Its effect, in a few words, for the help text. */
  readonly about: string;
  /**
   * The name of another option; without that, this one has no effect and is refused.
   *
   * @default {none}
   */
  readonly needs?: string;
}

/** An option without a value: `--read-only`. */
export interface FlagOption extends OptionBase {
  /** The type of value. */
  readonly type: "flag";
}

/** An option with a text: `--blk-file=PATH`. */
export interface TextOption extends OptionBase {
  /** The type of value. */
  readonly type: "text";
  /** The name of the value in the help text. */
  readonly placeholder: string;
  /** The value if the option is not given. */
  readonly default?: string;
  /** The possible values, if they are few. */
  readonly choices?: readonly string[];
}

/** An option with a number: `--num-queues=N`, or with `unit: "bytes"` a size such as `1G`. */
export interface NumberOption extends OptionBase {
  /** The type of value. */
  readonly type: "number";
  /** The name of the value in the help text. */
  readonly placeholder: string;
  /** `bytes` permits the suffixes K, M, G and T, powers of 1024. */
  readonly unit?: "bytes" | "ms";
  /** The value if the option is not given. */
  readonly default?: number;
  /** The smallest possible value. */
  readonly least?: number;
  /** The largest possible value. */
  readonly most?: number;
}

/** The declaration of an option. Its name in camel case becomes the flag: `blkFile` is `--blk-file`. */
export type OptionDefinition = FlagOption | TextOption | NumberOption;

/** The value of an option. */
export type OptionValue<D> = D extends FlagOption ? boolean
  : D extends TextOption ? D extends { choices: readonly (infer C)[] } ? C : string
  : number;

/** The values of options by name; undefined without a default if the option is not given. */
export type OptionValues<O> = {
  readonly [K in keyof O]: O[K] extends FlagOption | { default: unknown } ? OptionValue<O[K]>
    : OptionValue<O[K]> | undefined;
};

/** The flag of an option: `blkFile` → `blk-file`. */
export function flagName(option: string): string {
  return option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The error of a value that an option does not take. */
export class OptionError extends Error {
  /** The name of the class. */
  override name = "OptionError";
}

const SUFFIXES: Record<string, number> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/**
 * Parses the value of an option.
 *
 * @throws {OptionError} When the option does not take the value.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseOption } from "./options.ts";
 *
 * const size = { type: "number", unit: "bytes", placeholder: "SIZE", about: "" } as const;
 * assertEquals(parseOption("size", size, "1G"), 2 ** 30);
 * ```
 */
export function parseOption(
  name: string,
  definition: OptionDefinition,
  text: string,
): string | number | boolean {
  const flag = `--${flagName(name)}`;
  switch (definition.type) {
    case "flag":
      if (text === "" || text === "true") return true;
      if (text === "false") return false;
      throw new OptionError(`${flag} takes no value, got ${JSON.stringify(text)}`);
    case "text":
      if (text === "") {
        throw new OptionError(`${flag} needs a value: ${flag}=${definition.placeholder}`);
      }
      if (definition.choices !== undefined && !definition.choices.includes(text)) {
        throw new OptionError(
          `${flag} takes ${definition.choices.join(", ")}, got ${JSON.stringify(text)}`,
        );
      }
      return text;
    case "number":
      return parseNumber(flag, definition, text);
  }
}

function parseNumber(flag: string, definition: NumberOption, text: string): number {
  const pattern = definition.unit === "bytes" ? /^(\d+)([KMGT]?)$/i : /^(\d+|0x[\da-f]+)()$/i;
  const match = pattern.exec(text);
  const kind = definition.unit === "bytes" ? "a size such as 4096, 512M or 1G" : "a whole number";
  if (match === null) throw new OptionError(`${flag} takes ${kind}, got ${JSON.stringify(text)}`);
  const value = Number(match[1]) * SUFFIXES[match[2].toUpperCase()];
  const { least = 0, most = Number.MAX_SAFE_INTEGER } = definition;
  if (value < least || value > most) {
    throw new OptionError(`${flag} takes ${least} to ${most}, got ${text}`);
  }
  return value;
}

/**
 * Checks that every given option has an effect: that the option it needs is given too.
 *
 * @param given The values of the given options.
 * @throws {OptionError} With a remedy.
 *
 * @example
 * ```ts
 * import { assertThrows } from "@std/assert";
 * import { expectEffect, OptionError } from "./options.ts";
 *
 * const options = {
 *   file: { type: "text", placeholder: "PATH", about: "" },
 *   cache: { type: "text", placeholder: "none", about: "", needs: "file" },
 * } as const;
 * assertThrows(
 *   () => expectEffect(options, { cache: "none" }),
 *   OptionError,
 *   "--cache has no effect without --file; leave it out, or add --file=PATH",
 * );
 * ```
 */
export function expectEffect(
  options: Readonly<Record<string, OptionDefinition>>,
  given: Readonly<Record<string, unknown>>,
): void {
  const isGiven = (name: string) => given[name] !== undefined && given[name] !== false;
  for (const [name, { needs }] of Object.entries(options)) {
    if (needs === undefined || !isGiven(name) || isGiven(needs)) continue;
    const needed = options[needs];
    const value = needed.type === "flag" ? "" : `=${needed.placeholder}`;
    const flag = `--${flagName(needs)}`;
    throw new OptionError(
      `--${flagName(name)} has no effect without ${flag}; leave it out, or add ${flag}${value}`,
    );
  }
}

/** The values of options that are not given: defaults, and false for flags. */
export function defaultOptions<O extends Readonly<Record<string, OptionDefinition>>>(
  options: O,
): OptionValues<O> {
  return Object.fromEntries(
    Object.entries(options).map(([name, definition]) => [
      name,
      definition.type === "flag" ? false : definition.default,
    ]),
  ) as OptionValues<O>;
}

/**
 * Parses options that a module of the user's declares: `NAME=VALUE,…`, with `,,` for a comma in a
 * value.
 *
 * @param flag The flag that has the text, without `--`, for messages.
 * @param module The name of the module, for messages.
 * @returns The values, with defaults for those that are not given.
 * @throws {OptionError} When the module does not take an option or a value.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { parseOptionList } from "./options.ts";
 *
 * const options = {
 *   size: { type: "number", unit: "bytes", placeholder: "SIZE", default: 512, about: "Its size" },
 *   seed: { type: "number", placeholder: "N", default: 1, about: "The seed" },
 * } as const;
 * assertEquals(parseOptionList("store-options", "disk.ts", options, "size=1M"), {
 *   size: 2 ** 20,
 *   seed: 1,
 * });
 * ```
 */
export function parseOptionList(
  flag: string,
  module: string,
  definitions: Readonly<Record<string, OptionDefinition>>,
  text: string,
): Record<string, unknown> {
  const words = (text.match(/(?:,,|[^,])+/g) ?? []).map((word) => word.replaceAll(",,", ","));
  return { ...defaultOptions(definitions), ...parseSettings(flag, module, definitions, words) };
}

/**
 * Parses settings that are declared as options: `NAME=VALUE` each, once.
 *
 * @param flag The flag that has them, without `--`, for messages.
 * @param owner What they are settings of, for messages.
 * @returns The values of those that are given.
 * @throws {OptionError} When there is no such setting, or it does not take the value.
 */
export function parseSettings<O extends Readonly<Record<string, OptionDefinition>>>(
  flag: string,
  owner: string,
  definitions: O,
  words: readonly string[],
): Partial<OptionValues<O>> {
  const names = Object.keys(definitions);
  const values: Record<string, unknown> = {};
  for (const word of words) {
    const [, given, value] = /^([^=]*)=?(.*)$/s.exec(word)!;
    const name = names.find((name) => flagName(name) === given);
    if (name === undefined) {
      const known = names.map((name) => `${flagName(name)} (${definitions[name].about})`);
      throw new OptionError(
        `--${flag}: ${owner} has no option ${given}; it has ${known.join(", ") || "none"}`,
      );
    }
    if (Object.hasOwn(values, name)) throw new OptionError(`--${flag} takes ${given} once`);
    try {
      values[name] = parseOption(name, definitions[name], value);
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      throw new OptionError(`--${flag}: ${error.message.replaceAll("--", "")}`);
    }
  }
  return values as Partial<OptionValues<O>>;
}
