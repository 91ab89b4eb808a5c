/**
 * The error of a wrong command line.
 *
 * @module
 */

/** A wrong command line. The message says what was expected and what to do. */
export class UsageError extends Error {
  override name = "UsageError";
}
