/**
 * Loads modules that a person names.
 *
 * @module
 */

/** The default export of a module. */
export interface LoadedDefault {
  /** The URL of the module, by which other threads load it too. */
  readonly url: string;
  /** What it exports; undefined if it has no default export. */
  readonly value: unknown;
}

/**
 * Loads the default export of a module.
 *
 * @param kind What it is, for messages: "device".
 * @param name A path, relative to the working directory, or a URL.
 * @throws {Error} When it cannot be loaded, with the reason in one line.
 */
export async function loadDefault(kind: string, name: string): Promise<LoadedDefault> {
  const { pathToFileURL } = await import("node:url");
  const url = /^[a-z][a-z0-9+.-]+:/i.test(name) ? name : pathToFileURL(name).href;
  try {
    return { url, value: (await import(url)).default };
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot load the ${kind} ${name}: ${withRemedy(kind, reason)}`, { cause });
  }
}

/** Adds a remedy to the reason if the module's imports need the deno.json of its own folder. */
function withRemedy(kind: string, reason: string): string {
  const [first] = reason.split("\n");
  if (!/not in import map/.test(first)) return reason;
  return `${first}; the deno.json of the ${kind}'s folder has no say here: start it there by ` +
    "deno task vhostd, as in a folder that vhostd new makes";
}
