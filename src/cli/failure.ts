/**
 * Reports failures to a person, in one line.
 *
 * @module
 */

import { shown, shownLines } from "../runtime/shown.ts";
import { OptionError } from "../virtio/options.ts";
import { UsageError } from "./usage_error.ts";
import { isPermitted, TRACE_VARIABLE } from "./variables.ts";

/** The exit status for a wrong command line. */
export const EXIT_USAGE = 2;

/** The exit status for any other failure. */
export const EXIT_FAILURE = 1;

/** The report of a failure. */
export interface Failure {
  /** The message, one line. */
  line: string;
  /** The exit status of the process. */
  status: number;
}

/** Errors that only a bug throws. */
const MISTAKES = ["TypeError", "ReferenceError", "SyntaxError", "AssertionError"];

/**
 * Describes an error in one line.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { describeFailure } from "./failure.ts";
 *
 * assertEquals(describeFailure(new Error("Cannot open disk.img")), {
 *   line: "Cannot open disk.img",
 *   status: 1,
 * });
 * ```
 */
export function describeFailure(error: unknown): Failure {
  const isUsage = error instanceof UsageError || error instanceof OptionError;
  const status = isUsage ? EXIT_USAGE : EXIT_FAILURE;
  const message = shown(error instanceof Error ? error.message : String(error));
  if (error instanceof Error && !MISTAKES.includes(error.name) && message !== "") {
    return { line: message, status };
  }
  const name = error instanceof Error ? error.name : "an unknown error";
  return { line: `Internal error: ${name}: ${message}; VHOSTD_TRACE=1 prints the stack`, status };
}

/** Prints a line on stderr, if stderr is still open. */
export function say(line: string): void {
  write(`vhostd: ${shown(line)}\n`);
}

function write(text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  } catch {
    // stderr is closed.
  }
}

/** Prints an error, with its stack if `VHOSTD_TRACE` is set, and returns the exit status. */
export function tellFailure(error: unknown): number {
  const { line, status } = describeFailure(error);
  say(line);
  if (wantsTrace()) sayStack(Deno.inspect(error));
  return status;
}

/** Prints the stack of an error on stderr. */
export function sayStack(stack: string): void {
  write(`${shownLines(stack)}\n`);
}

/** Whether to print stacks. */
export function wantsTrace(): boolean {
  return isPermitted(TRACE_VARIABLE) &&
    !["", "0", undefined].includes(Deno.env.get(TRACE_VARIABLE));
}
