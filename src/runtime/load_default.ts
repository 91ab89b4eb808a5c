/**
 * Loads modules that a person names.
 *
 * @module
 */

/**
 * Time that a module has to load, in milliseconds. Its top level may await what never comes, and
 * then nothing would ever be said.
 */
const LOAD_LIMIT_MS = 30_000;

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
 * @param limitMs Time that it has for that.
 * @throws {Error} When it cannot be loaded in that time, with the reason in one line.
 */
export async function loadDefault(
  kind: string,
  name: string,
  limitMs: number = LOAD_LIMIT_MS,
): Promise<LoadedDefault> {
  const url = /^[a-z][a-z0-9+.-]+:/i.test(name) ? name : await fileUrl(name);
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(
      new Error(
        `Expected it within ${limitMs / 1000} s, still waiting: an await at its top level does ` +
          `not settle, or its imports are still coming, which deno cache ${name} waits for`,
      ),
    );
  }, limitMs);
  try {
    return { url, value: (await Promise.race([import(url), late.promise])).default };
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot load the ${kind} ${name}: ${withRemedy(kind, reason)}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

async function fileUrl(path: string): Promise<string> {
  const { pathToFileURL } = await import("node:url");
  return pathToFileURL(path).href;
}

/** Adds a remedy to the reason if the module's imports need the deno.json of its own folder. */
function withRemedy(kind: string, reason: string): string {
  const [first] = reason.split("\n");
  if (!/not in import map/.test(first)) return reason;
  return `${first}; the deno.json of the ${kind}'s folder has no say here: start it there by ` +
    "deno task vhostd, as in a folder that vhostd new makes";
}
