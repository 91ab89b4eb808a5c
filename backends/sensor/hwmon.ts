/**
 * Inputs of the kernel's hwmon directories: integers in text files.
 *
 * Source: Linux, Documentation/hwmon/sysfs-interface.rst.
 *
 * @module
 */

import { plainMessage } from "../../src/linux/mod.ts";

/** The longest name of a reading, in bytes. */
export const NAME_BYTES = 16;
/** The longest unit, in bytes. */
export const UNIT_BYTES = 8;

/** The units of inputs by the kind in their file name. */
const UNITS: Readonly<Record<string, string>> = {
  curr: "mA",
  fan: "RPM",
  humidity: "m%",
  in: "mV",
  power: "µW",
  temp: "m°C",
};

/** An input. */
export interface HwmonInput {
  /** Its label, or its file's name without `_input`. */
  readonly name: string;
  /** The unit of its values. */
  readonly unit: string;
  /** Its file. */
  readonly path: string;
}

/**
 * The inputs of a directory, by file name.
 *
 * @throws {Error} When there are none, or the directory cannot be read.
 */
export async function findInputs(directory: string): Promise<HwmonInput[]> {
  const inputs: HwmonInput[] = [];
  const entries = await Array.fromAsync(Deno.readDir(directory)).catch((cause) => {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new Error(`Cannot read ${directory}: ${plainMessage(cause)}`, { cause });
  });
  for (const { name: file } of entries) {
    const [, name, kind] = /^(([a-z]+)\d+)_input$/.exec(file) ?? [];
    if (!Object.hasOwn(UNITS, kind ?? "")) continue;
    const label = await Deno.readTextFile(`${directory}/${name}_label`).catch(() => name);
    // Labels may be the same, and longer than a reading's name can be
    const short = new TextEncoder().encode(label.trim()).length <= NAME_BYTES ? label.trim() : name;
    const isTaken = inputs.some(({ name }) => name === short);
    inputs.push({ name: isTaken ? name : short, unit: UNITS[kind], path: `${directory}/${file}` });
  }
  if (inputs.length === 0) throw new Error(`Expected files such as temp1_input in ${directory}`);
  return inputs.sort((a, b) => a.path < b.path ? -1 : 1);
}

/**
 * Reads an input.
 *
 * @throws {Error} When its file cannot be read, or holds no integer.
 */
export async function readInput(path: string): Promise<number> {
  const text = (await Deno.readTextFile(path)).trim();
  if (!/^-?\d+$/.test(text)) {
    throw new Error(`Expected an integer in ${path}, got ${JSON.stringify(text)}`);
  }
  return Number(text);
}
