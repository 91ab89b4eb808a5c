/**
 * Applies changes to a value of JSON.
 *
 * @module
 */

/**
 * Applies changes in place: each is the path to a value, then the value. The name `length` sets the
 * length of a list. Changes of what an object inherits are left out.
 */
export function applyChanges<T extends object>(
  root: T,
  changes: readonly (readonly unknown[])[],
): T {
  for (const change of changes) {
    const path = change.slice(0, -2) as string[];
    const [name, value] = change.slice(-2) as [string, unknown];
    let at = root as Record<string, unknown> | undefined;
    for (const name of path) {
      const inner = at !== undefined && Object.hasOwn(at, name) ? at[name] : undefined;
      at = typeof inner === "object" && inner !== null ? inner as typeof at : undefined;
    }
    if (at !== undefined && name !== "__proto__") at[name] = value;
  }
  return root;
}
