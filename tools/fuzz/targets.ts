/**
 * The fuzzers that there are.
 *
 * @module
 */

import type { FuzzTarget } from "./target.ts";

/** Each is the `target` of the module of that name, in this directory. */
const NAMES = ["device", "ring", "storage", "wire"];

/** The names of the targets. */
export function targetNames(): string[] {
  const files = new Set([...Deno.readDirSync(import.meta.dirname!)].map(({ name }) => name));
  return NAMES.filter((name) => files.has(`${name}.ts`));
}

/** A target, by one of the names. */
export async function loadTarget(name: string): Promise<FuzzTarget> {
  const { target } = await import(`./${name}.ts`) as { target: FuzzTarget };
  return target;
}
