/**
 * Opens overlays, on the main thread: the file, its maps, and the chain of bases below it.
 *
 * @module
 */

import { fileKind, kindAt, readBytes, readLink } from "../../../src/linux/mod.ts";
import { dataSync, LinuxError } from "../../../src/linux/mod.ts";
import { openFileStore } from "../file_store.ts";
import type { BlkOptions } from "../options.ts";
import {
  type AnyOpenStore,
  FILE_LIMITS,
  type FileHandle,
  type OpenOverlayStore,
  type OpenStore,
  type StoreControl,
} from "../store.ts";
import { isModule } from "../store_name.ts";
import { createDelta, growDelta, loadMap, openToRead, readHeader } from "./delta_file.ts";
import { type BaseFacts, isOverlay, layoutOf, OVERLAY_BLOCK_BYTES } from "./format.ts";
import type { OverlayMap } from "./overlay_map.ts";

/** The most overlays that lie on each other. */
export const MOST_OVERLAYS = 16;

/** Opens the store that options ask for. */
type Open = (
  options: BlkOptions,
  opening: { log(message: string): void; resized(): void },
) => Promise<AnyOpenStore>;

/**
 * Opens the overlay that `options.overlay` names over the disk that `options.blkFile` names, or over
 * the one that it was made on. A new one is made where there is no file.
 *
 * @param open Opens what is no overlay.
 * @throws {Error} When it is damaged or in use, or its base is not what it was.
 */
export async function openOverlayStore(
  options: BlkOptions,
  opening: { log(message: string): void; resized(): void },
  open: Open,
  above = 0,
): Promise<OpenOverlayStore> {
  const { readOnly, blkFile } = options;
  const path = options.overlay!;
  if (above === MOST_OVERLAYS) {
    throw new Error(
      `Expected at most ${MOST_OVERLAYS} overlays on each other; commit some of them`,
    );
  }
  const isNew = kindAt(path) === undefined;
  if (isNew && (readOnly || blkFile === undefined)) {
    throw new Error(
      `Cannot open overlay ${path}: it does not exist; name the disk that it is to be made on, ` +
        `as in vhostd blk --overlay=${path} disk.img`,
    );
  }
  await using opened = new AsyncDisposableStack();
  const recorded = isNew ? undefined : readHeader(path).base;
  const name = blkFile ?? recorded!.name;
  if (blkFile === undefined && isModule(name)) {
    throw new Error(
      `Cannot open overlay ${path}: its base ${name} is a program, which runs only if you ` +
        `name it: vhostd blk --overlay=${path} ${name}`,
    );
  }
  if (recorded !== undefined && (options.format ?? recorded.format) !== recorded.format) {
    throw new Error(
      `Cannot open overlay ${path}: it was made with --format=${recorded.format}, got ` +
        `--format=${options.format}; leave that out`,
    );
  }
  if (!isNew) expectOther(path, name);
  const format = recorded?.format ?? options.format;
  const base = opened.use(await openBase(name, { ...options, format }, opening, open, above));
  const facts = factsOf(base, name);
  if (isNew) createDelta(path, facts);
  return layOverlay({ path, options, log: opening.log, base, facts }, opened);
}

/** What an overlay is laid on. */
export interface Laying {
  /** Its file, which exists. */
  path: string;
  options: BlkOptions;
  log(message: string): void;
  base: StoreControl;
  /** What the base is now. */
  facts: BaseFacts;
}

/**
 * Opens the file of an overlay over a base that is open.
 *
 * @param opened What ends with the overlay; it takes it over.
 */
export function layOverlay(
  { path, options, log, base, facts }: Laying,
  opened: AsyncDisposableStack,
): OpenOverlayStore {
  const { readOnly } = options;
  const { delta, map, ...found } = openDelta(path, options, log, opened);
  let { header } = found;
  if (header.isCommitting) {
    throw new Error(
      `Cannot open overlay ${path}: its commit was interrupted; end it: vhostd overlay commit ${path}`,
    );
  }
  expectSameBase(path, header.base, facts);
  const { liveOffset, durableOffset } = layoutOf(header.roomBytes);
  const { fd } = delta.handle;
  if (!readOnly) opened.defer(() => makeDurable(map, fd, durableOffset));
  const resources = opened.move();
  return {
    kind: "overlay",
    abilities: {
      ...FILE_LIMITS,
      logicalBlockBytes: Math.max(
        FILE_LIMITS.logicalBlockBytes,
        base.abilities.logicalBlockBytes,
      ),
      readOnly,
      durable: true,
      discard: delta.abilities.discard,
      writeZeroes: !readOnly,
      unmap: delta.abilities.unmap,
      isOneThread: base.abilities.isOneThread,
    },
    handle: {
      kind: "overlay",
      delta: delta.handle,
      base: base.handle,
      baseBytes: facts.bytes,
      baseBlockBytes: base.abilities.logicalBlockBytes,
      maps: map.memory,
      ...{ liveOffset, durableOffset },
    },
    firstBytes: map.live.has(0) ? delta.firstBytes : base.firstBytes,
    bytes: () => header.diskBytes,
    ...!readOnly && {
      resize(bytes: number) {
        header = growDelta(delta, header, bytes);
      },
    },
    identity: delta.identity,
    describe: () => ({
      path,
      allocatedBytes: map.liveCount * OVERLAY_BLOCK_BYTES,
      base: { name: facts.name, kind: base.kind, ...base.describe() },
    }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/**
 * Opens what lies below an overlay, to be read: any disk, or where `options.format` says so, another
 * overlay.
 */
export async function openBase(
  name: string,
  options: BlkOptions,
  opening: { log(message: string): void; resized(): void },
  open: Open,
  above = 0,
): Promise<AnyOpenStore> {
  const below = { ...options, readOnly: true };
  return options.format === "overlay"
    ? await openOverlayStore(
      { ...below, overlay: name, blkFile: undefined, format: undefined },
      opening,
      open,
      above + 1,
    )
    : await open({ ...below, overlay: undefined, blkFile: name }, opening);
}

/** Opens the file of an overlay, and reads its maps. */
export function openDelta(
  path: string,
  options: BlkOptions,
  log: (message: string) => void,
  opened: AsyncDisposableStack,
): { header: ReturnType<typeof readHeader>; delta: OpenStore<FileHandle>; map: OverlayMap } {
  const { readOnly, io, cache, lock } = options;
  const { roomBytes } = readHeader(path);
  const { dataOffset } = layoutOf(roomBytes);
  const delta = opened.use(openFileStore(path, {
    ...{
      readOnly,
      io,
      direct: cache === "none" || cache === "directsync",
      lock: lock === "on",
      log,
    },
    ...{ format: "raw", start: dataOffset },
  }));
  // Again, now that no other process can change it.
  const { fd } = delta.handle;
  const header = readHeader(path, fd);
  if (header.roomBytes !== roomBytes) {
    throw new Error(`Cannot open overlay ${path}: it has changed`);
  }
  return { header, delta, map: loadMap(fd, header, readOnly) };
}

/** What is recorded of a base. */
export function factsOf(base: StoreControl, name: string): BaseFacts {
  const bytes = base.bytes();
  if (bytes === 0 || bytes % 512 !== 0) {
    throw new Error(
      `${name}: Expected a disk with a multiple of 512 bytes, got ${bytes}; ` +
        "truncate -s %512 makes a file longer, by zeroes",
    );
  }
  const { handle } = base;
  const file = handle.kind === "overlay" ? handle.delta : handle;
  return {
    name: file.kind === "file" ? pathOf(file.fd) : isModulePath(name) ? kernelPath(name) : name,
    format: handle.kind === "overlay" ? "overlay" : "raw",
    bytes,
    identity: base.identity?.() ?? "",
  };
}

/** Whether a name is the path of a module, and not its URL. */
function isModulePath(name: string): boolean {
  return isModule(name) && !URL.canParse(name);
}

/** The path that the kernel knows, whatever the working directory will be. */
function pathOf(fd: number): string {
  return readLink(`/proc/self/fd/${fd}`);
}

/** As the name in {@linkcode factsOf}, of a file that is not open. */
function kernelPath(path: string): string {
  using file = openToRead(path);
  return pathOf(file.number);
}

/**
 * Expects that an overlay is not to lie on itself.
 *
 * @param name What is to be below it.
 */
export function expectOther(path: string, name: string): void {
  if (kindAt(name) !== "file") return;
  try {
    if (kernelPath(name) !== kernelPath(path)) return;
  } catch (error) {
    if (error instanceof LinuxError) return; // opening it reports why it cannot be
    throw error;
  }
  throw new Error(`Cannot lay ${path} on itself; name the disk that is to be below it`);
}

/** Expects that a base is the one that an overlay was made on. */
export function expectSameBase(path: string, expected: BaseFacts, base: BaseFacts): void {
  const describe = ({ name, bytes, identity }: BaseFacts) =>
    `${name} (${bytes} bytes${identity && `, ${identity}`})`;
  const isSame = expected.bytes === base.bytes && expected.identity === base.identity &&
    // Without an identity, only the name tells a disk from another one of its size.
    (base.identity !== "" || expected.name === base.name);
  if (isSame) return;
  throw new Error(
    `Cannot open overlay ${path}: it was made on ${describe(expected)}, got ${describe(base)}, ` +
      "with which it would be a mix; restore its base, or if that has the same content: " +
      `vhostd overlay rebase --unsafe ${path} ${base.name}`,
  );
}

/** Whether a file begins as an overlay does; opening it reports what cannot be opened. */
export function beginsAsOverlay(name: string): boolean {
  try {
    using fd = openToRead(name);
    return fileKind(fd.number) === "file" && isOverlay(readBytes(fd.number, 0, 8));
  } catch (error) {
    if (error instanceof LinuxError) return false;
    throw error;
  }
}

/** Makes the map durable at the end, which the driver may not have asked for. */
function makeDurable(map: OverlayMap, fd: number, durableOffset: number): void {
  if (!map.hasNew || dataSync(fd) < 0) return;
  const snapshot = map.snapshot();
  // Nothing writes any more: what could not be made durable is as if it was not flushed.
  if (map.writeDurable(snapshot, fd, durableOffset) === 0) dataSync(fd);
}
