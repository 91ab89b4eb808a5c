/** What takes long to make is made once, under the project's ignored `.cache/`. */

/** How long what has another recipe is kept: other branches and checkouts may use it. */
const KEPT_MS = 24 * 3_600_000;

const CACHE = new URL("../../.cache/guest/", import.meta.url).pathname;

/**
 * The path of a file or directory that is made when it is missing. It is named after its recipe
 * (all that decides how it looks), and gets that name only when it is complete. Processes that want
 * the same thing at the same time wait for the first of them.
 */
export async function cached(
  name: string,
  recipe: string,
  make: (path: string) => Promise<void>,
): Promise<string> {
  const directory = `${CACHE}${name}`;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(recipe));
  const path = `${directory}/${new Uint8Array(digest, 0, 8).toHex()}`;
  if (await exists(path)) return path;

  await Deno.mkdir(directory, { recursive: true });
  using lock = await Deno.open(`${directory}.lock`, { write: true, create: true });
  await lock.lock(true);
  if (await exists(path)) return path;
  for await (const { name } of Deno.readDir(directory)) {
    const other = `${directory}/${name}`;
    const { mtime } = await Deno.lstat(other);
    const isOld = mtime !== null && Date.now() - mtime.getTime() > KEPT_MS;
    // A process that was killed leaves a partial one
    if (isOld || name.endsWith(".partial")) await Deno.remove(other, { recursive: true });
  }
  await make(`${path}.partial`);
  await Deno.rename(`${path}.partial`, path);
  return path;
}

/** Whether there is something at a path. */
export async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
