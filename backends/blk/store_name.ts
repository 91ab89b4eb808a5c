/**
 * What the name of a disk says.
 *
 * @module
 */

/** Whether a name is that of a module: no disk image has such a name. */
export function isModule(name: string): boolean {
  return /\.[cm]?[jt]s$/.test(name);
}

/** Stores that a URI names; each is a module like a user's, and loaded when it is needed. */
const URI_STORES: readonly { readonly begins: RegExp; readonly module: string }[] = [
  { begins: /^nbds?(\+unix)?:/i, module: import.meta.resolve("./nbd/mod.ts") },
  // One that ends in .ts is a module
  { begins: /^https?:\/\/(?!.*\.[cm]?[jt]s$)/i, module: import.meta.resolve("./http/mod.ts") },
  { begins: /^rbd:/, module: import.meta.resolve("./rbd/mod.ts") },
];

/** The module of the store that a URI names; undefined where it is none. */
export function uriStore(name: string): string | undefined {
  return URI_STORES.find(({ begins }) => begins.test(name))?.module;
}

/** Whether a name is that of a file or a block device. */
export function isFileName(name: string): boolean {
  return !isModule(name) && uriStore(name) === undefined;
}
