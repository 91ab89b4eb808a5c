/**
 * Files that vhostd writes, which no other flag may name.
 *
 * @module
 */

import { identityAt } from "../linux/file/path.ts";
import { flagName } from "../virtio/mod.ts";
import { UsageError } from "./usage_error.ts";

/** The options whose files are replaced or emptied at the start. */
const WRITTEN = ["record", "trace", "wire"];

/**
 * Checks that no other flag names a file that is written: it would be lost before it is used.
 *
 * @param values The values that were given.
 * @throws {UsageError} When one does.
 */
export function expectOwnFiles(values: Readonly<Record<string, unknown>>): void {
  const fileOf = (name: string) => {
    const value = values[name];
    return typeof value === "string" ? identityAt(value) ?? value : undefined;
  };
  for (const written of WRITTEN) {
    const path = values[written];
    if (path === undefined) continue;
    const file = fileOf(written);
    const other = Object.keys(values).find((name) => name !== written && fileOf(name) === file);
    if (other === undefined) continue;
    throw new UsageError(
      `Expected another file for --${written}, got ${path}, which is that of --${flagName(other)}`,
    );
  }
}
