/**
 * Applies changes to a value of JSON.
 *
 * @module
 */

/**
 * Applies changes in place: each is the path to a value, then the value. The name `length` makes a
 * list shorter. Changes of what an object inherits are left out, and those that would leave a gap in
 * a list.
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
    if (at === undefined || name === "__proto__") continue;
    if (!Array.isArray(at)) at[name] = value;
    else if (name === "length" ? Number(value) <= at.length : Number(name) <= at.length) {
      (at as Record<string, unknown>)[name] = value;
    }
  }
  return root;
}
