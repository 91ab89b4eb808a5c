/**
 * A stand-in for the part of `@std/cli` that vhostd uses, where JSR cannot be reached. Remove
 * `compat/std` to use the package.
 *
 * It does without `node:util`: loading Deno's first Node module takes longer than starting Deno.
 *
 * @module
 */

/** The options of `parseArgs` that the stand-in knows. */
export interface ParseOptions {
  /** Options whose values stay texts; `_` for arguments that are no options. */
  string?: readonly string[];
  /** Options that may be given more than once; their values are in an array. */
  collect?: readonly string[];
  /** Whether the arguments after `--` are returned apart, as `"--"`. */
  "--"?: boolean;
  /** Called for other options and for arguments that are none; `false` drops them. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** The result of `parseArgs`. */
export type Args = { [name: string]: unknown; _: (string | number)[]; "--"?: string[] };

/** Parses command line arguments. */
export function parseArgs(args: readonly string[], options: ParseOptions = {}): Args {
  const { string = [], collect = [], unknown } = options;
  const result: Args = { _: [] };
  const typed = (name: string, value: string | boolean) =>
    !string.includes(name) && /\S/.test(`${value}`) && Number.isFinite(Number(value)) &&
      typeof value === "string"
      ? Number(value)
      : value;
  function set(arg: string, name: string, value: string | boolean): void {
    if (!string.includes(name) && unknown?.(arg, name, value) === false) return;
    if (!collect.includes(name)) result[name] = typed(name, value);
    else result[name] = [...(result[name] as unknown[] ?? []), typed(name, value)];
  }

  const end = args.includes("--") ? args.indexOf("--") : args.length;
  for (let i = 0; i < end; i++) {
    const arg = args[i];
    const [, dashes, name, value] = /^(--|-(?=.))(.+?)(?:=(.+))?$/s.exec(arg) ?? [];
    if (name === undefined) {
      if (unknown?.(arg) !== false) result._.push(typed("_", arg) as string | number);
      continue;
    }
    // Letters together are options one by one; only the last one has the value
    const names = dashes === "-" ? [...name] : [name];
    const last = names.pop()!;
    for (const letter of names) set(arg, letter, string.includes(letter) ? "" : true);
    const hasNext = value === undefined && i + 1 < end && !args[i + 1].startsWith("-");
    set(arg, last, value ?? (hasNext ? args[++i] : string.includes(last) ? "" : true));
  }
  for (const name of collect) if (string.includes(name)) result[name] ??= [];
  const rest = args.slice(end + 1);
  if (options["--"]) result["--"] = rest;
  else result._.push(...rest);
  return result;
}
