/**
 * A stand-in for the part of `@std/cli` that vhostd uses, for machines that
 * cannot reach JSR. Where the package can be had, remove `compat/std`.
 *
 * It has no use for `node:util`, whose parser would do: loading the first of
 * Deno's Node modules takes longer than starting Deno does, and a daemon
 * starts through here.
 *
 * @module
 */

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
  const takesValue = (name: string) => options.string?.includes(options.alias?.[name] ?? name);
  for (const token of tokensOf(own, takesValue)) {
    if (options.stopEarly && result._.length > 0) {
      result._ = [...result._, ...own.slice(token.index)];
      break;
    }
    if (token.name === undefined) {
      if (options.unknown?.(token.raw) !== false) result._.push(token.raw);
    } else {
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
      if (!known && options.unknown?.(token.raw, name, value) === false) {
        continue;
      }
      if (options.collect?.includes(name)) result[name].push(value);
      else result[name] = value;
    }
  }
  return result;
}

/** A part of a command line: an option, or an argument that is none. */
interface Token {
  /** Where it stands. */
  index: number;
  /** As it was written, without a value. */
  raw: string;
  /** The option's name. */
  name?: string;
  /** The option's value. */
  value?: string;
}

function* tokensOf(
  args: readonly string[],
  takesValue: (name: string) => boolean | undefined,
): Generator<Token> {
  for (let index = 0; index < args.length; index++) {
    const arg = args[index];
    if (arg === "--") {
      // Everything behind it is no option.
      for (let i = index + 1; i < args.length; i++) yield { index: i, raw: args[i] };
      return;
    }
    const next = () => args[index + 1]?.startsWith("-") ? undefined : args[++index];
    const [, long, value] = /^--([^=]+)(?:=(.*))?$/s.exec(arg) ?? [];
    if (long !== undefined) {
      const at = index;
      const own = value ?? (takesValue(long) ? next() : undefined);
      yield { index: at, raw: `--${long}`, name: long, value: own };
    } else if (/^-[^-]/.test(arg)) {
      // Letters together are options one by one; the last one may take a value.
      const at = index;
      for (const [i, name] of [...arg.slice(1)].entries()) {
        const isLast = i === arg.length - 2;
        const own = isLast && takesValue(name) ? next() : undefined;
        yield { index: at, raw: `-${name}`, name, value: own };
      }
    } else {
      yield { index, raw: arg };
    }
  }
}
