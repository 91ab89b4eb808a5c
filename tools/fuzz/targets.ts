import type { FuzzTarget } from "./frame.ts";

/** The names of the fuzzers: each is the `target` of the module of that name. */
export const TARGETS = ["device", "ring", "storage", "wire"];

export async function loadTarget(name: string): Promise<FuzzTarget> {
  const { target } = await import(`./${name}.ts`) as { target: FuzzTarget };
  return target;
}
