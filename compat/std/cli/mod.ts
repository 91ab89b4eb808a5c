/**
 * A stand-in for the part of `@std/cli` that vhostd uses, for machines that
 * cannot reach JSR. The parsing is node:util's.
 * Where the package can be had, remove `compat/std`.
 *
 * @module
 */

import { parseArgs as nodeParseArgs } from "node:util";

/** The options of `parseArgs` that the stand-in knows. */
export interface ParseOptions {
  /** Names that take no value. */
  boolean?: readonly string[];
  /** Names that take a value. */
  string?: readonly string[];
  /** Names that may be given more than once; their value is an array. */
  collect?: readonly string[];
  /** Other names of options. */
  alias?: Record<string, string>;
  /** Names for which `--no-NAME` gives false. */
  negatable?: readonly string[];
  /** Whether what follows `--` is kept apart, under `"--"`. */
  "--"?: boolean;
  /** Whether everything after the first positional argument is positional. */
  stopEarly?: boolean;
  /** Called for what is no known option; returning false drops it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** What `parseArgs` returns. */
// deno-lint-ignore no-explicit-any
export type Args = Record<string, any> & { _: string[]; "--"?: string[] };

/** Takes command line arguments apart. */
export function parseArgs(
  args: readonly string[],
  options: ParseOptions = {},
): Args {
  let own = [...args];
  const result: Args = { _: [] };
  for (const name of options.boolean ?? []) result[name] = false;
  for (const name of options.collect ?? []) result[name] = [];
  if (options["--"]) {
    const at = own.indexOf("--");
    result["--"] = at < 0 ? [] : own.slice(at + 1);
    if (at >= 0) own = own.slice(0, at);
  }
  const { tokens } = nodeParseArgs({
    args: own,
    strict: false,
    tokens: true,
    options: Object.fromEntries([
      ...(options.boolean ?? []).map((name) => [name, { type: "boolean" }]),
      ...(options.string ?? []).map((name) => [name, { type: "string" }]),
      ...Object.entries(options.alias ?? {}).filter(([key]) => key.length > 1)
        .map((
          [key, name],
        ) => [key, {
          type: options.string?.includes(name) ? "string" : "boolean",
        }]),
    ]),
    allowPositionals: true,
  });
  for (const token of tokens) {
    if (options.stopEarly && result._.length > 0) {
      result._ = [...result._, ...own.slice(token.index)];
      break;
    }
    if (token.kind === "positional") {
      if (options.unknown?.(token.value) !== false) result._.push(token.value);
    } else if (token.kind === "option") {
      let name = options.alias?.[token.name] ?? token.name;
      let value: string | boolean = token.value ??
        (options.string?.includes(name) ? "" : true);
      if (options.boolean?.includes(name)) value = token.value !== "false";
      const positive = name.replace(/^no-/, "");
      if (name !== positive && options.negatable?.includes(positive)) {
        [name, value] = [positive, false];
      }
      const known = options.boolean?.includes(name) ||
        options.string?.includes(name);
      if (!known && options.unknown?.(token.rawName, name, value) === false) {
        continue;
      }
      if (options.collect?.includes(name)) result[name].push(value);
      else result[name] = value;
    }
  }
  return result;
}
