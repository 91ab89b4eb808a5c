/**
 * The error of a command line that cannot be understood.
 *
 * @module
 */

/** A command line that cannot be understood. Its message says what was expected and what to do. */
export class UsageError extends Error {
  override name = "UsageError";
}
