/**
 * What the name of a disk says.
 *
 * @module
 */

/** Whether a name is that of a module: no disk image has such a name. */
export function isModule(name: string): boolean {
  return /\.[cm]?[jt]s$/.test(name);
}
