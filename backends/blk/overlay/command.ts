/**
 * `vhostd overlay`: commands for overlays that are not being served.
 *
 * @module
 */

import { formatBytes, parseOptionList, shown, shownJson } from "../../../mod.ts";
import { dataSync, kindAt, LinuxError, punchHole, watchesEnded } from "../../../src/linux/mod.ts";
import { type BlkOptions, blkOptions } from "../options.ts";
import type { AnyOpenStore } from "../store.ts";
import { isModule } from "../store_name.ts";
import { openStore } from "../stores.ts";
import { clearMaps, loadMap, openToRead, readHeader, writeHeader } from "./delta_file.ts";
import { layoutOf, OVERLAY_BLOCK_BYTES, type OverlayHeader } from "./format.ts";
import { LocalDisk, PIECE_BYTES } from "./local_disk.ts";
import {
  beginsAsOverlay,
  expectOther,
  expectSameBase,
  factsOf,
  openBase,
  openDelta,
  openOverlayStore,
} from "./open_overlay.ts";

const OPENING = { log: say, resized() {} };

const options = {
  json: { type: "flag", about: "Of info: as JSON" },
  format: {
    type: "text",
    placeholder: "raw|overlay",
    choices: ["raw", "overlay"],
    about: "Of rebase: the other base is raw, whatever it begins with, or another overlay",
  },
  unsafe: {
    type: "flag",
    about: "Of rebase: only note the other base, which you know to have the same content",
  },
} as const;

export default {
  usage: "overlay info|commit|rebase DELTA [BASE]",
  about: `Shows or changes an overlay of vhostd blk --overlay=DELTA that is not being served.

info DELTA: shows how much is written in it, and its bases.
commit DELTA: writes its blocks to its base and empties it. Run it again if it was interrupted.
rebase DELTA BASE: lays it on another disk (for an overlay: --format=overlay). Blocks in which the \
two disks differ are copied to DELTA first, so its content stays the same.`,
  options,
  actions: ["info", "commit", "rebase"],
  async run(
    values: { json?: boolean; format?: BlkOptions["format"]; unsafe?: boolean },
    [action, path, base, ...others]: readonly string[],
  ): Promise<void> {
    const expected = action === "rebase" ? 2 : 1;
    const got = [path, base, ...others].filter((operand) => operand !== undefined).length;
    if (got !== expected) {
      throw new RangeError(
        `Expected ${expected === 1 ? "one path" : "two paths"} after ${action}, got ${got}`,
      );
    }
    if (values.json && action !== "info") throw new RangeError("Expected --json of info only");
    if (values.format !== undefined && action !== "rebase") {
      throw new RangeError("Expected --format of rebase only");
    }
    if (values.unsafe && action !== "rebase") {
      throw new RangeError("Expected --unsafe of rebase only");
    }
    if (action === "info") info(path, values.json === true);
    else if (action === "commit") await commit(path).catch((error) => tellOfRest(path, error));
    else await rebase(path, base, values.unsafe === true, values.format);
    await watchesEnded();
  },
};

/** Options of a disk that a program opens. */
function diskOptions(): BlkOptions {
  return parseOptionList("blk", "overlay", blkOptions, "io=sync") as BlkOptions;
}

function factsAt(path: string) {
  const header = readHeader(path);
  using file = openToRead(path);
  const map = loadMap(file.number, header, true);
  return {
    file: path,
    diskBytes: header.diskBytes,
    allocatedBytes: map.liveCount * OVERLAY_BLOCK_BYTES,
    state: header.isCommitting ? "a commit was interrupted" : "whole",
    base: header.base,
  };
}

function info(path: string, isJson: boolean): void {
  const facts = factsAt(path);
  if (isJson) return console.log(shownJson(facts, 2));
  const rows = {
    file: facts.file,
    disk: formatBytes(facts.diskBytes),
    allocated: formatBytes(facts.allocatedBytes),
    state: facts.state,
    base: `${facts.base.name} (${facts.base.format}, ${formatBytes(facts.base.bytes)})`,
  };
  for (const [name, value] of Object.entries(rows)) {
    console.log(`${name.padEnd(11)}${shown(value)}`);
  }
}

/** Prints a line, escaped: the names in a foreign overlay can contain anything. */
function say(line: string): void {
  console.error(shown(line));
}

/** A commit has failed: says so, and if it had begun, that it is to be repeated. */
function tellOfRest(path: string, cause: Error): never {
  if (kindAt(path) !== "file" || !beginsAsOverlay(path) || !readHeader(path).isCommitting) {
    throw cause;
  }
  throw new Error(`${cause.message}; ${path} still has all of it: mend that, and commit it again`, {
    cause,
  });
}

/** Writes the blocks of an overlay to its base. */
async function commit(path: string): Promise<void> {
  const { base: recorded, isCommitting: isRepeated } = readHeader(path);
  const { name } = recorded;
  if (isModule(name)) throw new Error(`Cannot commit ${path}: its base ${name} is a program`);
  const options: BlkOptions = { ...diskOptions(), format: recorded.format };
  await using opened = new AsyncDisposableStack();
  const { header, delta, map } = openDelta(path, options, OPENING.log, opened);
  const { live } = map;
  const blocks = Math.ceil(header.diskBytes / OVERLAY_BLOCK_BYTES);
  const behind = Math.floor(recorded.bytes / OVERLAY_BLOCK_BYTES);
  if (recorded.bytes < header.diskBytes && live.find(true, behind, blocks - 1) < blocks) {
    throw new Error(
      `Cannot commit ${path}: it has data behind the end of ${name}; lay it on a disk of at least ` +
        `${header.diskBytes} bytes first: vhostd overlay rebase ${path} BASE`,
    );
  }
  if (!isRepeated) {
    await using base = await openBase(name, options, OPENING, openStore);
    expectSameBase(path, recorded, factsOf(base, name));
  }
  const { fd } = delta.handle;
  let { sequence } = header;
  const note = (change: Partial<OverlayHeader>) =>
    writeHeader(fd, { ...header, ...change, sequence: ++sequence });
  // Before the base is opened for writing, which sets its time of change
  note({ isCommitting: true });
  const base = opened.use(
    await openToWrite(path, name, options).catch((error) => {
      if (!isRepeated) note({});
      throw error;
    }),
  );
  if (base.bytes() !== header.base.bytes) {
    throw new Error(`Cannot commit ${path}: ${name} has another size than before`);
  }
  using from = await LocalDisk.attach(path, delta.handle);
  using to = await LocalDisk.attach(name, base.handle);
  const end = Math.min(header.diskBytes, base.bytes());
  const last = Math.ceil(end / OVERLAY_BLOCK_BYTES) - 1;
  const progress = new Progress("Committed", end);
  for (let block = live.find(true, 0, last); block <= last; block = live.find(true, block, last)) {
    const most = Math.min(last, block + PIECE_BYTES / OVERLAY_BLOCK_BYTES - 1);
    const next = live.find(false, block, most);
    const offset = block * OVERLAY_BLOCK_BYTES;
    const bytes = Math.min(next * OVERLAY_BLOCK_BYTES, end) - offset;
    await from.read(offset, bytes);
    to.buffer.set(from.buffer.subarray(0, bytes));
    const isZero = from.buffer.subarray(0, bytes).every((byte) => byte === 0);
    if (isZero && base.abilities.writeZeroes) await to.writeZeroes(offset, bytes);
    else await to.write(offset, bytes);
    progress.at(offset + bytes);
    if (next > last) break;
    block = next;
  }
  if (base.abilities.durable) await to.flush();
  // The base has all of it: whatever bits of the maps are left from here on, nothing is wrong.
  note({ base: factsOf(base, name), isCommitting: false });
  clearMaps(fd, header);
  if (dataSync(fd) < 0) throw new LinuxError("fdatasync", undefined, path);
  punchHole(fd, layoutOf(header.roomBytes).dataOffset, header.diskBytes);
  progress.end(`${path} is committed to ${name}, and empty`);
}

/** Opens the base of an overlay for writing. */
async function openToWrite(path: string, name: string, options: BlkOptions): Promise<AnyOpenStore> {
  await using opened = new AsyncDisposableStack();
  const base = opened.use(
    options.format === "overlay"
      ? await openOverlayStore({ ...options, overlay: name, format: undefined }, OPENING, openStore)
      : await openStore({ ...options, blkFile: name }, OPENING),
  );
  if (base.abilities.readOnly) throw new Error(`Cannot commit ${path}: ${name} can only be read`);
  opened.move();
  return base;
}

/** Lays an overlay on another disk. */
async function rebase(
  path: string,
  name: string,
  isUnsafe: boolean,
  format: BlkOptions["format"],
): Promise<void> {
  const options = diskOptions();
  expectOther(path, name);
  await using opened = new AsyncDisposableStack();
  const base = opened.use(await openBase(name, { ...options, format }, OPENING, openStore));
  const facts = factsOf(base, name);
  if (isUnsafe) {
    const { header, delta } = openDelta(path, options, OPENING.log, opened);
    writeHeader(delta.handle.fd, {
      ...header,
      ...{ sequence: header.sequence + 1, base: facts, isCommitting: false },
    });
    say(`${path} lies on ${facts.name}`);
    return;
  }
  const overlay = opened.use(
    await openOverlayStore({ ...options, overlay: path }, OPENING, openStore),
  );
  const { fd } = overlay.handle.delta;
  const header = readHeader(path, fd);
  const map = loadMap(fd, header, true);
  using to = await LocalDisk.attach(path, overlay.handle);
  using from = await LocalDisk.attach(name, base.handle);
  const progress = new Progress("Compared", header.diskBytes);
  for (let at = 0; at < header.diskBytes; at += PIECE_BYTES) {
    const bytes = Math.min(PIECE_BYTES, header.diskBytes - at);
    await to.read(at, bytes);
    await from.read(at, bytes, facts.bytes);
    for (let start = 0; start < bytes; start += OVERLAY_BLOCK_BYTES) {
      const length = Math.min(OVERLAY_BLOCK_BYTES, bytes - start);
      if (map.live.has((at + start) / OVERLAY_BLOCK_BYTES)) continue;
      const [old, other] = [to, from].map(({ buffer }) => buffer.subarray(start, start + length));
      if (old.every((byte, i) => byte === other[i])) continue;
      await to.write(at + start, length, start);
    }
    progress.at(at + bytes);
  }
  await to.flush();
  writeHeader(fd, { ...header, sequence: header.sequence + 1, base: facts });
  progress.end(`${path} lies on ${facts.name}`);
}

/** Shows on a terminal how far something is. */
class Progress {
  readonly #what: string;
  readonly #total: number;
  #shown = -1;

  constructor(what: string, total: number) {
    this.#what = what;
    this.#total = total;
  }

  at(bytes: number): void {
    const share = Math.floor(bytes * 100 / this.#total);
    if (share === this.#shown || !Deno.stderr.isTerminal()) return;
    this.#shown = share;
    Deno.stderr.writeSync(new TextEncoder().encode(`\r${this.#what} ${share} %`));
  }

  end(message: string): void {
    if (this.#shown >= 0) Deno.stderr.writeSync(new TextEncoder().encode("\r"));
    say(message);
  }
}
