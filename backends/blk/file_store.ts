/**
 * A store in a raw disk image or a block device, by system calls on the queue
 * thread itself, straight between the file and guest memory.
 *
 * @module
 */

import type { Parts } from "../../mod.ts";
import {
  addressOf,
  blockDiscard,
  type BlockLimits,
  blockLimits,
  canPunchHole,
  dataSync,
  Errno,
  errno,
  type Fd,
  fileBytes,
  fileKind,
  IoVectors,
  LinuxError,
  MAX_IO_VECTORS,
  openFile,
  pinnedBuffer,
  punchHole,
  readVectors,
  setNonblocking,
  writeVectors,
  zeroRange,
} from "../../src/linux/mod.ts";
import type { FileHandle, OpenStore, Store, StoreHost, StoreRequest } from "./store.ts";

/** What a file system is assumed to like. */
const FILE_LIMITS: BlockLimits = {
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  minIoBytes: 4096,
  optimalIoBytes: 0,
};

/**
 * Opens an image or a block device.
 *
 * @throws {Error} When it cannot be opened or is no such thing; the message is
 * for the person who named it.
 */
export function openFileStore(path: string, { readOnly }: { readOnly: boolean }): OpenStore {
  const fd = openImage(path, readOnly);
  try {
    const isBlockDevice = expectImage(path, fd.number) === "block";
    setNonblocking(fd.number, false);
    const limits = isBlockDevice ? blockLimits(fd.number) : FILE_LIMITS;
    const punch = !readOnly && canPunchHole(fd.number, isBlockDevice);
    return {
      kind: isBlockDevice ? "block device" : "file",
      abilities: { ...limits, readOnly, durable: true, discard: punch, unmap: punch },
      handle: { kind: "file", fd: fd.number, isBlockDevice },
      bytes: () => fileBytes(fd.number),
      describe: () => ({
        path,
        ...!isBlockDevice && { allocatedBytes: allocatedBytes(fd.number) },
      }),
      [Symbol.dispose]: () => fd.close(),
    };
  } catch (error) {
    fd.close();
    throw error;
  }
}

function openImage(path: string, readOnly: boolean): Fd {
  try {
    // Not waiting: a named pipe would not open before somebody writes to it.
    return openFile(path, { write: !readOnly, nonblocking: true });
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    throw new Error(`Cannot open disk image ${path}: ${whyNot(error, readOnly)}`, {
      cause: error,
    });
  }
}

function whyNot({ code, message }: LinuxError, readOnly: boolean): string {
  switch (code) {
    case "ENOENT":
      return "it does not exist";
    case "EISDIR":
      return "it is a directory";
    case "ENXIO":
      return "it is not a file or block device";
    case "EACCES":
    case "EPERM":
      return readOnly
        ? "no permission to read it"
        : "no permission to read and write it (--read-only needs only the first)";
    case "EROFS":
    case "ETXTBSY":
      return "it can only be read; add --read-only";
    default:
      return message;
  }
}

function expectImage(path: string, fd: number): "file" | "block" {
  const kind = fileKind(fd);
  if (kind === "file" || kind === "block") return kind;
  throw new Error(
    `Cannot open disk image ${path}: it is ${
      kind === "directory" ? "a directory" : "not a file or block device"
    }`,
  );
}

/** How much space a file takes, in bytes. */
export function allocatedBytes(fd: number): number {
  return (Deno.statSync(`/proc/self/fd/${fd}`).blocks ?? 0) * 512;
}

/** Attaches a queue thread to a file. */
export function attachFileStore(handle: FileHandle, host: StoreHost): Store {
  return new FileStore(handle, host);
}

/** How long a file is tried again that says EAGAIN, in milliseconds. */
const EAGAIN_LIMIT_MS = 1000;

/** What is written where a file system cannot make a range zero by itself. */
const ZEROES_BYTES = 64 * 1024;

class FileStore implements Store {
  readonly #fd: number;
  readonly #isBlockDevice: boolean;
  /** The address of index 0 of guest memory. */
  readonly #base: number;
  readonly #vectors = new IoVectors();
  #zeroes: Uint8Array<ArrayBuffer> | undefined;
  #canZeroRange = true;

  constructor({ fd, isBlockDevice }: FileHandle, { memory }: StoreHost) {
    this.#fd = fd;
    this.#isBlockDevice = isBlockDevice;
    this.#base = memory.base;
  }

  read({ data, offset, bytes }: StoreRequest): number {
    return this.#transfer(false, data, offset, bytes);
  }

  write({ data, offset, bytes }: StoreRequest): number {
    return this.#transfer(true, data, offset, bytes);
  }

  /** Goes on until everything is moved: a call may move less, and takes a limited number of parts. */
  #transfer(isWrite: boolean, data: Parts, offset: number, bytes: number): number {
    const vectors = this.#vectors;
    const count = data.count;
    let part = 0, skip = 0; // where the data goes on
    while (bytes > 0) {
      vectors.count = 0;
      for (let i = part, from = skip; i < count && vectors.count < MAX_IO_VECTORS; i++, from = 0) {
        const length = data.length(i) - from;
        if (length > 0) vectors.push(this.#base + data.index(i) + from, length);
      }
      const moved = this.#call(isWrite, offset);
      if (moved < 0) return -moved;
      offset += moved;
      bytes -= moved;
      skip += moved;
      while (part < count && skip >= data.length(part)) skip -= data.length(part++);
    }
    return 0;
  }

  /** Moves what the vectors name; returns how much of it, or a negative errno. */
  #call(isWrite: boolean, offset: number): number {
    for (let waited = 0;;) {
      const moved = isWrite
        ? writeVectors(this.#fd, this.#vectors, offset)
        : readVectors(this.#fd, this.#vectors, offset);
      if (moved > 0) return moved;
      // The file ends before its disk does: somebody made it shorter.
      if (moved === 0) return isWrite ? -Errno.EIO : -Errno.ENODATA;
      const code = errno();
      if (code === Errno.EINTR) continue;
      if (code !== Errno.EAGAIN || waited++ >= EAGAIN_LIMIT_MS) return -code;
      pause(1);
    }
  }

  flush(): number {
    return attempt(() => dataSync(this.#fd));
  }

  discard({ offset, bytes }: StoreRequest): number {
    const code = attempt(() =>
      this.#isBlockDevice
        ? blockDiscard(this.#fd, offset, bytes)
        : punchHole(this.#fd, offset, bytes)
    );
    // A discard is advice, and what cannot take it need not.
    return isUnable(code) ? 0 : code;
  }

  writeZeroes({ offset, bytes }: StoreRequest, unmap: boolean): number {
    if (unmap) {
      const code = attempt(() => punchHole(this.#fd, offset, bytes));
      if (!isUnable(code)) return code;
    }
    if (this.#canZeroRange) {
      const code = attempt(() => zeroRange(this.#fd, offset, bytes));
      if (!isUnable(code)) return code;
      this.#canZeroRange = code !== Errno.EOPNOTSUPP;
    }
    return this.#writeZeroBytes(offset, bytes);
  }

  #writeZeroBytes(offset: number, bytes: number): number {
    const zeroes = this.#zeroes ??= new Uint8Array(pinnedBuffer(ZEROES_BYTES));
    const address = addressOf(zeroes);
    const vectors = this.#vectors;
    while (bytes > 0) {
      vectors.count = 0;
      for (let left = bytes; left > 0 && vectors.count < MAX_IO_VECTORS; left -= ZEROES_BYTES) {
        vectors.push(address, Math.min(left, ZEROES_BYTES));
      }
      const moved = this.#call(true, offset);
      if (moved < 0) return -moved;
      offset += moved;
      bytes -= moved;
    }
    return 0;
  }
}

/** Repeats a call while a signal interrupts it; returns 0 or the errno. */
function attempt(call: () => number): number {
  for (;;) {
    if (call() >= 0) return 0;
    const code = errno();
    if (code !== Errno.EINTR) return code;
  }
}

/** Not supported; or by a block device with large blocks not for this range. */
function isUnable(code: number): boolean {
  return code === Errno.EOPNOTSUPP || code === Errno.EINVAL;
}

const never = new Int32Array(new SharedArrayBuffer(4));

function pause(ms: number): void {
  Atomics.wait(never, 0, 0, ms);
}
