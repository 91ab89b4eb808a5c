/**
 * The error of a benchmark that cannot go on.
 *
 * @module
 */

/** A failure that its message explains to the person who ran the command. */
export class BenchError extends Error {
  override name = "BenchError";
}
