/**
 * What a person is told when something fails: one line.
 *
 * @module
 */

import { shown, shownLines } from "../runtime/shown.ts";
import { OptionError } from "../virtio/options.ts";
import { UsageError } from "./usage_error.ts";
import { isPermitted, TRACE_VARIABLE } from "./variables.ts";

/** The exit status of a command line that cannot be understood. */
export const EXIT_USAGE = 2;

/** The exit status of anything else that fails. */
export const EXIT_FAILURE = 1;

/** How a failure is told. */
export interface Failure {
  /** One line. */
  line: string;
  /** The exit status of the process. */
  status: number;
}

/** Errors that only a mistake in a program throws. */
const MISTAKES = ["TypeError", "ReferenceError", "SyntaxError", "AssertionError"];

/**
 * Says in one line what an error is about.
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

/** Prints a line on stderr; that nobody reads it any more is no reason to stop. */
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

/** Prints what failed, with the stack if `VHOSTD_TRACE` asks for it, and returns the exit status. */
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

/** Whether stacks are to be printed. */
export function wantsTrace(): boolean {
  return isPermitted(TRACE_VARIABLE) &&
    !["", "0", undefined].includes(Deno.env.get(TRACE_VARIABLE));
}
