/**
 * A disk on a web server, which is only read: `vhostd blk https://…/disk.raw`.
 *
 * @module
 */

import { OptionError } from "../../../mod.ts";
import { fileStat, plainMessage } from "../../../src/linux/mod.ts";
import { expectRaw, FORMAT_BYTES } from "../image_format.ts";
import { defineStore } from "../module/define_store.ts";
import { type FileVersion, HttpFault } from "./answer.ts";
import { cacheName, defaultDirectory } from "./cache_directory.ts";
import { CHUNK_BYTES, chunksOf, openCacheFile, touchCacheFile } from "./cache_file.ts";
import { ChunkReader } from "./chunk_reader.ts";
import type { CacheHandle } from "./disk_cache.ts";
import { Progress, ProgressLines } from "./progress.ts";
import { MAX_PART_MS, RemoteFile, type ServerAccess } from "./remote_file.ts";

/** The most bytes of a disk that are kept in memory if they cannot be cached on disk. */
const MEMORY_BYTES = 67_108_864;

/** The most bytes of the cache on disk. */
const CACHE_BYTES = 10 * 2 ** 30;

/** The most bytes of a file with certificates or a password. */
const MAX_FILE_BYTES = 2 ** 22;

/** What a queue thread gets. */
interface Shared {
  readonly access: ServerAccess;
  readonly version: FileVersion;
  readonly progress: SharedArrayBuffer;
  readonly cache?: CacheHandle;
  readonly memoryBytes: number;
}

export default defineStore({
  options: {
    auth: {
      type: "text",
      placeholder: "FILE",
      about: "A file with NAME:PASSWORD for the server (Basic authentication)",
    },
    ca: {
      type: "text",
      placeholder: "FILE",
      about: "Certificates (PEM) of authorities to trust beside the usual ones",
    },
    cache: {
      type: "text",
      placeholder: "DIR|off",
      about: "Where to keep fetched chunks, for all processes that serve this disk; off: in " +
        "memory. By default $CACHE_DIRECTORY/http, $XDG_CACHE_HOME/vhostd/http or " +
        "~/.cache/vhostd/http",
    },
    cacheSize: {
      type: "number",
      unit: "bytes",
      placeholder: "SIZE",
      least: 16 * 2 ** 20,
      most: 2 ** 50,
      about: "The most bytes of the cache, for all its disks; by default 10G, in memory 64M",
    },
    connections: {
      type: "number",
      placeholder: "N",
      least: 1,
      most: 64,
      default: 4,
      about: "The most requests to the server at a time",
    },
    timeout: {
      type: "number",
      placeholder: "SECONDS",
      least: 1,
      most: 3600,
      default: 10,
      about: "Time without a byte after which a request fails",
    },
    retry: {
      type: "number",
      placeholder: "SECONDS",
      least: 0,
      most: 3600,
      default: 25,
      about: "How long failed requests are retried, before the guest's reads fail",
    },
  },

  async open(options, { name, format, log }) {
    const access: ServerAccess = {
      url: urlOf(name),
      ...options.ca !== undefined && { ca: certificatesOf(options.ca) },
      ...options.auth !== undefined && { authorization: authorizationOf(options.auth) },
      connections: options.connections,
      timeoutMs: options.timeout * 1000,
      retryMs: options.retry * 1000,
      partMs: MAX_PART_MS,
    };
    const version = await versionAt(access, format === "raw");
    if (version.etag === undefined) {
      log(
        `${name} has no strong ETag: a change is noticed by its Last-Modified and size, so not if ` +
          "both stay the same",
      );
    }
    const cache = await openCache(access.url, version, options, log);
    const progress = new Progress();
    const lines = new ProgressLines(version.bytes, performance.now(), log);
    const timer = setInterval(() => lines.look(progress, performance.now()), 1000);
    Deno.unrefTimer(timer);
    const shared: Shared = {
      ...{ access, version, progress: progress.memory, cache: cache?.handle },
      memoryBytes: cache === undefined && options.cacheSize || MEMORY_BYTES,
    };
    return {
      bytes: Math.ceil(version.bytes / 512) * 512,
      identity: version.etag ?? version.lastModified,
      shared,
      report: () => ({
        fetched: progress.fetched,
        of: version.bytes,
        requests: progress.requests,
        retries: progress.retries,
        ...cache && { cached: fileStat(cache.handle.fd).allocatedBytes, cache: cache.path },
      }),
      close() {
        clearInterval(timer);
        lines.look(progress, performance.now(), true);
        cache?.close();
      },
    };
  },

  attach(context) {
    const { access, version, progress, cache, memoryBytes } = context.shared as Shared;
    const file = new RemoteFile(access);
    const reader = new ChunkReader(context, {
      ...{ file, version, cache, connections: access.connections, busyMs: access.retryMs },
      memoryChunks: memoryBytes / CHUNK_BYTES,
      progress: new Progress(progress),
    });
    return { file, reader };
  },

  read: (request, { reader }) => reader.read(request),
  cancel: ({ reader }) => reader.cancel(),
  close({ file, reader }) {
    reader.close();
    file[Symbol.dispose]();
  },
});

/** Asks for the version of the file, and expects it to be a raw image, unless it is said to be. */
async function versionAt(access: ServerAccess, isRaw: boolean): Promise<FileVersion> {
  using file = new RemoteFile(access);
  try {
    const { version, bytes: first } = await file.first(FORMAT_BYTES);
    const last = new Uint8Array(Math.min(FORMAT_BYTES, version.bytes));
    if (!isRaw) {
      await file.read(version, version.bytes - last.length, last, () => {}, () => {});
      expectRaw(access.url, first, last);
    }
    return version;
  } catch (error) {
    if (!(error instanceof HttpFault)) throw error;
    const remedy = error.isFinal || error.message.includes("certificate")
      ? ""
      : "; the server is needed also for a disk that is cached whole, as it tells whether that is the " +
        "same still";
    throw new Error(`Cannot open ${access.url}: ${error.message}${remedy}`, { cause: error });
  }
}

/** Opens the file of the cache; returns nothing where data is kept in memory. */
async function openCache(
  url: string,
  version: FileVersion,
  { cache, cacheSize = CACHE_BYTES }: { readonly cache?: string; readonly cacheSize?: number },
  log: (message: string) => void,
) {
  if (cache === "off") return undefined;
  const directory = cache ?? defaultDirectory();
  try {
    if (directory === undefined) throw new Error("there is no $HOME");
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const name = await cacheName(url, version);
    const path = `${directory}/${name}`;
    const fd = openCacheFile(path, chunksOf(version));
    const handle: CacheHandle = { fd: fd.number, directory, name, limitBytes: cacheSize };
    return {
      handle,
      path,
      close() {
        touchCacheFile(fd.number);
        fd.close();
      },
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    const what = plainMessage(error);
    const why = `Cannot use ${directory ?? "a directory"} as a cache: ${what}`;
    if (cache !== undefined) throw new Error(why, { cause: error });
    log(`${why}; what is fetched is kept in memory (--store-options=cache=DIR)`);
    return undefined;
  }
}

/** Checks a URL. */
function urlOf(name: string): string {
  if (!URL.canParse(name)) {
    throw new OptionError(`Expected a URL such as https://host/disk.raw, got ${name}`);
  }
  const url = new URL(name);
  if (url.username !== "" || url.password !== "") {
    throw new OptionError(
      "Expected a URL without a name and a password, which other users could see; write " +
        "NAME:PASSWORD to a file and add --store-options=auth=FILE",
    );
  }
  url.hash = "";
  return url.href;
}

/** The text of a file, up to a limit: it may be a device. */
function readFile(path: string): string {
  const bytes = new Uint8Array(MAX_FILE_BYTES + 1);
  let length = 0;
  try {
    using file = Deno.openSync(path);
    for (let read; (read = file.readSync(bytes.subarray(length)) ?? 0) > 0;) length += read;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new Error(`Cannot read ${path}: ${plainMessage(cause)}`, { cause });
  }
  if (length <= MAX_FILE_BYTES) return new TextDecoder().decode(bytes.subarray(0, length));
  throw new Error(`Expected at most ${MAX_FILE_BYTES} bytes in ${path}, got more`);
}

/** The certificates in a file. */
function certificatesOf(path: string): string {
  const text = readFile(path);
  if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  throw new Error(`Expected certificates (PEM) in ${path}, got none`);
}

/** The field Authorization for the name and the password in a file. */
function authorizationOf(path: string): string {
  const [line] = readFile(path).split(/\r?\n/);
  if (!line.includes(":")) throw new Error(`Expected NAME:PASSWORD as the first line of ${path}`);
  const bytes = new TextEncoder().encode(line);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}
