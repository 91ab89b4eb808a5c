/**
 * Reads QEMU's trace of accesses to memory regions, from a FIFO that QEMU's log goes to.
 *
 * Whatever happens here, the guest must not wait: the FIFO is read all the time and what is not
 * processed in time is dropped, and QEMU's side of it is made non-blocking where this process may.
 *
 * @module
 */

import { type Fd, setNonblocking, writeNow } from "../../linux/fd.ts";
import { FIFO_BYTES, makeFifo, neverBlockWriter } from "../../linux/file/fifo.ts";

/** The event of a PCI device whose registers get an address. */
const MOVE_EVENT = "pci_update_mappings_add";

/** The trace events that are needed. */
export const TRACE_EVENTS = [
  ...["memory_region_ops_read", "memory_region_ops_write"],
  MOVE_EVENT,
] as const;

/**
 * Pause between two reads. With a blocked reader, QEMU would have to wake it for each line, which
 * takes longer than writing one.
 */
const PAUSE_MS = 10;

/** Accesses that wait to be processed; more are dropped. */
const MAX_PENDING = 65_536;

/** The longest line that is looked at, in characters. */
const MAX_LINE = 1024;

/**
 * A read that brings this part of what the FIFO holds found it full, and QEMU may have dropped lines:
 * the kernel leaves the end of a page empty where a line does not fit.
 */
const FULL = 15 / 16;

/** An access to a memory region. */
export interface TracedAccess {
  /** Milliseconds since 1970: QEMU's clock if the line has it, else the time of reading. */
  at: number;
  isWrite: boolean;
  /** The region: the address of its structure in QEMU. */
  region: string;
  /** The name of the region, such as `virtio-pci-common-virtio-blk`. */
  name: string;
  address: number;
  /** Hexadecimal, with `0x`. */
  value: string;
  bytes: number;
}

const LINE =
  /^(?:\d+@(\d+\.\d+):)?memory_region_ops_(read|write) cpu -?\d+ mr (0x[0-9a-f]+) addr 0x([0-9a-f]+) value (0x[0-9a-f]{1,16}) size (\d) name '(virtio-[\w.-]*)'$/;

/** Reads a line of the trace; undefined if it is no access to a virtio device. */
export function parseTraceLine(line: string, now: number): TracedAccess | undefined {
  const match = LINE.exec(line);
  if (match === null) return undefined;
  const [, seconds, kind, region, address, value, size, name] = match;
  return {
    at: seconds === undefined ? now : Number(seconds) * 1000,
    isWrite: kind === "write",
    ...{ region, name, value },
    address: parseInt(address, 16),
    bytes: Number(size),
  };
}

/** How the names of directories begin that have the FIFO of a watch. */
const DIRECTORY_PREFIX = "vhostd-watch-";

/** The directory of a watch whose FIFO is the log of a process, if there is one. */
export function watchDirectoryOf(pid: number): string | undefined {
  const links = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
    } catch {
      return ""; // It was closed meanwhile
    }
  });
  const [, directory] = links.map((link) => FIFO_PATH.exec(link)).find((found) => found) ?? [];
  return directory;
}

const FIFO_PATH = new RegExp(`^(.*/${DIRECTORY_PREFIX}[^/]*)/trace$`);

/** A FIFO for QEMU's log. */
export class TraceLog implements AsyncDisposable {
  /** The path for QEMU. */
  readonly path: string;
  /** Accesses that were dropped, and reads that found the FIFO full. */
  lost = 0;
  /** Whether accesses come without the names of regions, so that none can be told: QEMU 5.2. */
  isNameless = false;
  /** Whether a PCI device's registers got an address since this was set to false. */
  hasMoved = false;
  /** Called when there are accesses to take. */
  onAccess: () => void = () => {};
  readonly #file: Deno.FsFile;
  /** Ends the pending read: Deno does one thing at a time with a file. */
  readonly #wake: Fd;
  /** How much the FIFO holds. */
  readonly #capacity: number;
  readonly #directory: string;
  readonly #reading: Promise<void>;
  #pending: TracedAccess[] = [];
  #isClosing = false;

  /** Makes the FIFO, in a directory of its own, and begins to read. */
  constructor() {
    this.#directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: DIRECTORY_PREFIX }));
    this.path = `${this.#directory}/trace`;
    const { fd, bytes } = makeFifo(this.path);
    this.#wake = fd;
    this.#capacity = bytes;
    setNonblocking(this.#wake.number, true);
    this.#file = Deno.openSync(this.path, { read: true, write: true });
    this.#reading = this.#read();
  }

  /**
   * Makes QEMU drop lines rather than wait should the FIFO fill. QEMU must have opened it.
   *
   * @throws {Error} When this process may not.
   */
  protect(pid: number): void {
    neverBlockWriter(pid, this.path);
  }

  /** The accesses since the last call, in order. */
  take(): TracedAccess[] {
    const pending = this.#pending;
    this.#pending = [];
    return pending;
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(FIFO_BYTES);
    const decoder = new TextDecoder("latin1");
    let rest = "";
    for (;;) {
      const count = await this.#file.read(buffer) ?? 0;
      if (count >= FULL * this.#capacity) this.lost++;
      const text = rest + decoder.decode(buffer.subarray(0, count));
      const end = text.lastIndexOf("\n") + 1;
      rest = text.slice(end).slice(-MAX_LINE);
      this.#scan(text.slice(0, end));
      if (this.#isClosing && count < buffer.length) return;
      if (!this.#isClosing) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /** Finds the lines about virtio devices: one in a hundred while a guest boots. */
  #scan(text: string): void {
    const now = Date.now();
    const before = this.#pending.length;
    if (text.includes(MOVE_EVENT)) this.hasMoved = true;
    for (let at = text.indexOf("'virtio-"); at >= 0; at = text.indexOf("'virtio-", at)) {
      const start = text.lastIndexOf("\n", at) + 1;
      const end = text.indexOf("\n", at);
      const access = parseTraceLine(text.slice(start, Math.min(end, start + MAX_LINE)), now);
      if (access !== undefined) {
        if (this.#pending.length < MAX_PENDING) this.#pending.push(access);
        else this.lost++;
      }
      at = end;
    }
    if (this.#pending.length > before) this.onAccess();
    else if (text.includes("memory_region_ops_") && !text.includes(" name '")) {
      this.isNameless = true;
      this.onAccess();
    }
  }

  /** Reads what is there, and then no more. */
  async stop(): Promise<void> {
    this.#isClosing = true;
    writeNow(this.#wake.number, Uint8Array.of(10));
    await this.#reading;
  }

  /** Stops, closes the FIFO and removes it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#wake.close();
    this.#file.close();
    await Deno.remove(this.#directory, { recursive: true });
  }
}
