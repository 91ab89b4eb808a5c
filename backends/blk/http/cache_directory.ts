/**
 * The directory of the cache: a file for each version of each disk.
 *
 * @module
 */

import type { FileVersion } from "./answer.ts";
import { CHUNK_BYTES, removeCacheFile } from "./cache_file.ts";

/** The end of the names of files. */
const SUFFIX = ".chunks";

/** The most characters of a name that come from the URL. */
const MAX_NAME = 60;

/**
 * The directory that is used if none is named; undefined where the user has none.
 *
 * Source: systemd.exec(5), CacheDirectory; XDG Base Directory Specification.
 */
export function defaultDirectory(): string | undefined {
  const own = Deno.env.get("CACHE_DIRECTORY")?.split(":")[0];
  if (own) return `${own}/http`;
  const home = Deno.env.get("HOME");
  const base = Deno.env.get("XDG_CACHE_HOME") || (home && `${home}/.cache`);
  return base ? `${base}/vhostd/http` : undefined;
}

/** The name of the file for a version of the file that a URL names. */
export async function cacheName(url: string, version: FileVersion): Promise<string> {
  const { bytes, etag, lastModified } = version;
  const key = JSON.stringify([1, CHUNK_BYTES, url, bytes, etag ?? null, lastModified ?? null]);
  const hash = new Uint8Array(
    await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key)),
  );
  const name = new URL(url).pathname.split("/").at(-1)!.replace(/[^\w.-]/g, "_").slice(-MAX_NAME);
  return `${name}.${hash.toHex().slice(0, 32)}${SUFFIX}`;
}

/**
 * Removes files that no process uses, those first that were used last the longest time ago, while
 * the directory takes more than a number of bytes.
 *
 * @param own The name of a file that stays.
 * @returns How much more it takes after that; not above 0: it does not.
 */
export function excessOf(directory: string, bytes: number, own: string): number {
  const files = [...Deno.readDirSync(directory)].filter(({ name }) => name.endsWith(SUFFIX))
    .flatMap(({ name }) => {
      const path = `${directory}/${name}`;
      try {
        const { blocks, mtime } = Deno.lstatSync(path);
        return { name, path, bytes: (blocks ?? 0) * 512, mtime: Number(mtime) };
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return [];
        throw error;
      }
    }).sort((a, b) => a.mtime - b.mtime);
  let excess = files.reduce((sum, file) => sum + file.bytes, 0) - bytes;
  for (const file of files) {
    if (excess <= 0) break;
    if (file.name !== own && removeCacheFile(file.path)) excess -= file.bytes;
  }
  return excess;
}
