/**
 * A store in a raw disk image or a block device, by system calls on the queue thread itself,
 * straight between the file and guest memory.
 *
 * @module
 */

import {
  addressOf,
  dataSync,
  directAlignment,
  Errno,
  errno,
  type Fd,
  fileBytes,
  fileKind,
  fileStat,
  IoUring,
  IoVectors,
  LinuxError,
  openFile,
  pinnedBuffer,
  punchHole,
  readBytes,
  readVectors,
  reopenFile,
  resizeFile,
  setNonblocking,
  writeVectors,
  zeroRange,
} from "../../src/linux/mod.ts";
import {
  blockDiscard,
  blockLimits,
  blockSecureErase,
  canSecureErase,
  isHostManaged,
  isReadOnlyDevice,
  tryPunchHole,
} from "./block_device.ts";
import { descriptorFor } from "./direct.ts";
import { expectRaw, FORMAT_BYTES } from "./image_format.ts";
import { type Lifetime, lifetimeDirectory, readLifetime } from "./lifetime.ts";
import { lockDevice, lockImage, patiently, pause } from "./image_lock.ts";
import { MappedFile } from "./mapped_store.ts";
import {
  FILE_LIMITS,
  type FileHandle,
  type IoMode,
  type OpenStore,
  type Store,
  type StoreHost,
  type StoreRequest,
} from "./store.ts";

/**
 * Opens an image or a block device.
 *
 * @throws {Error} When it cannot be opened or is no such thing; the message is for the person who
 * named it.
 */
export function openFileStore(path: string, options: FileStoreOptions): OpenStore<FileHandle> {
  const { readOnly, start = 0 } = options;
  using opened = new DisposableStack();
  const fd = opened.use(openImage(path, readOnly));
  const isBlockDevice = expectImage(path, fd.number) === "block";
  const firstBytes = readBytes(fd.number, start, FORMAT_BYTES);
  if (options.format !== "raw") {
    const last = Math.max(0, fileBytes(fd.number) - FORMAT_BYTES);
    expectRaw(path, firstBytes, readBytes(fd.number, last, FORMAT_BYTES));
  }
  if (options.lock) {
    opened.use(lockImage(path, fd.number, readOnly));
    if (isBlockDevice) opened.use(lockDevice(path, fd.number, readOnly));
  }
  setNonblocking(fd.number, false);
  const limits = isBlockDevice ? blockLimits(fd.number) : FILE_LIMITS;
  // Of the descriptor that is locked: the path may name another file by now.
  const directFd = options.direct ? opened.use(openDirect(path, fd.number, readOnly)) : undefined;
  const alignment = directFd && directAlignment(directFd.number);
  const punch = !readOnly && expectWritable(path, fd.number, isBlockDevice);
  const mapped = options.io === "auto" && !isBlockDevice && !options.direct && !readOnly
    ? opened.use(MappedFile.open(fd.number, fileBytes(fd.number) - start, true, start))
    : undefined;
  const lifetimePath = isBlockDevice
    ? lifetimeDirectory(fileStat(fd.number).deviceNumber)
    : undefined;
  const resources = opened.move();
  return {
    kind: isBlockDevice ? "block device" : "file",
    abilities: {
      ...limits,
      readOnly,
      durable: true,
      discard: punch,
      writeZeroes: !readOnly,
      unmap: punch,
      secureErase: isBlockDevice && !readOnly && canSecureErase(fd.number),
      lifetime: lifetimePath !== undefined,
    },
    handle: {
      kind: "file",
      fd: fd.number,
      isBlockDevice,
      start,
      io: ioMode(options),
      directFd: directFd?.number ?? -1,
      directOffsetAlign: alignment?.offsetBytes ?? limits.logicalBlockBytes,
      directMemoryAlign: alignment?.memoryBytes ?? limits.logicalBlockBytes,
      map: mapped?.handle,
      lifetimePath,
    },
    firstBytes,
    bytes: () => fileBytes(fd.number) - start,
    ...!isBlockDevice && { identity: () => `mtime ${fileStat(fd.number).modifiedAt}` },
    ...!isBlockDevice && !readOnly && {
      resize(bytes: number) {
        if (mapped === undefined) resizeFile(fd.number, start + bytes);
        else mapped.resize(() => resizeFile(fd.number, start + bytes));
      },
    },
    describe: () => ({
      path,
      io: options.io,
      cache: options.direct ? "none" : "writeback",
      ...mapped && { isMapped: mapped.isOpen },
      ...lifetimePath !== undefined && { lifetime: readLifetime(lifetimePath) },
      ...!isBlockDevice && { allocatedBytes: allocatedBytes(fd.number) },
    }),
    [Symbol.dispose]: () => resources.dispose(),
  };
}

/** How to open a file. */
export interface FileStoreOptions {
  /** Refuse writes. */
  readOnly: boolean;
  /** How requests are carried out. */
  io: IoMode;
  /** Past the page cache. */
  direct: boolean;
  /** Exclude other programs that write to it. */
  lock: boolean;
  /** The format that the person named; without one, an image that does not look raw is refused. */
  format?: "raw";
  /** Where in the file the disk begins, in bytes. @default {0} */
  start?: number;
  /** Takes messages for the person who runs the device. */
  log(message: string): void;
}

/** The mode that is possible here; logs when it is less than was asked for. */
function ioMode({ io, log }: FileStoreOptions): IoMode {
  if (io === "sync") return io;
  try {
    new IoUring(1)[Symbol.dispose]();
    return io;
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    const why = `io_uring cannot be used here (${error.message})`;
    if (io === "uring") throw new Error(`${why}; use --io=auto or --io=sync`, { cause: error });
    log(`${why}: files are read and written by system calls`);
    return "sync";
  }
}

function openDirect(path: string, fd: number, readOnly: boolean): Fd {
  try {
    return reopenFile(fd, { write: !readOnly, direct: true });
  } catch (error) {
    if (!(error instanceof LinuxError) || error.errno !== Errno.EINVAL) throw error;
    throw new Error(`${path}: its file system cannot do --cache=none or directsync (O_DIRECT)`, {
      cause: error,
    });
  }
}

function openImage(path: string, readOnly: boolean): Fd {
  try {
    return patiently(() => {
      // Non-blocking: opening a named pipe would wait for a writer.
      return openFile(path, { write: !readOnly, nonblocking: true });
    });
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    throw new Error(`Cannot open disk image ${path}: ${whyNot(error, readOnly)}`, {
      cause: error,
    });
  }
}

const ONLY_READ = "it can only be read; add --read-only";

/** Of an immutable file (chattr +i), or one that is sealed. */
const CANNOT_CHANGE = "it may not be changed (chattr -i?), only be read; add --read-only";

/**
 * Expects that a file opened for writing can be written: opening it does not always tell.
 *
 * @returns Whether its space can be given back.
 */
function expectWritable(path: string, fd: number, isBlockDevice: boolean): boolean {
  const refuse = (why: string): never => {
    throw new Error(`Cannot open disk image ${path}: ${why}`);
  };
  if (isBlockDevice && isReadOnlyDevice(fd)) refuse(ONLY_READ);
  if (isBlockDevice && isHostManaged(fd)) {
    refuse(
      "it is a zoned device, whose zones are not passed on; it can only be read (--read-only)",
    );
  }
  const code = tryPunchHole(fd, isBlockDevice);
  if (code === Errno.EROFS || code === Errno.ETXTBSY || code === Errno.EBADF) refuse(ONLY_READ);
  if (code === Errno.EPERM) refuse(CANNOT_CHANGE);
  return code !== Errno.EOPNOTSUPP;
}

function whyNot({ code, message }: LinuxError, readOnly: boolean): string {
  switch (code) {
    case "ENOENT":
      return "it does not exist";
    case "EISDIR":
      return "it is a directory";
    case "ENXIO":
      return "it is not a file or block device";
    case "EPERM":
      if (!readOnly) return CANNOT_CHANGE;
    // falls through
    case "EACCES":
      return readOnly
        ? "no permission to read it"
        : "no permission to read and write it (--read-only needs only the first)";
    case "EBUSY":
      return "the kernel or another program has it for itself; is it mounted?";
    case "EAGAIN":
      return "another program has it for itself (a lease) and does not let go";
    case "EROFS":
    case "ETXTBSY":
      return ONLY_READ;
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
  return fileStat(fd).allocatedBytes;
}

/** How long a file is tried again that says EAGAIN, in milliseconds. */
const EAGAIN_LIMIT_MS = 1000;

/** The bytes of zeroes per write where a file system cannot zero a range itself. */
const ZEROES_BYTES = 64 * 1024;

/** Carries requests out by a system call each, while the thread waits. */
export class FileStore implements Store {
  readonly #fd: number;
  readonly #handle: FileHandle;
  readonly #isBlockDevice: boolean;
  /** Where in the file the disk begins. */
  readonly #start: number;
  /** The address of index 0 of guest memory. */
  readonly #base: number;
  /**
   * The same file, opened once more for flushes. The kernel reports lost writes once per open file,
   * so each thread has its own.
   */
  readonly syncFd: number;
  readonly #ownSync: Fd | undefined;
  readonly #vectors = new IoVectors();
  #zeroes: Uint8Array<ArrayBuffer> | undefined;
  #canZeroRange = true;

  /** Attaches to a file. */
  constructor(handle: FileHandle, { memory }: StoreHost) {
    this.#handle = handle;
    this.#fd = handle.fd;
    this.#isBlockDevice = handle.isBlockDevice;
    this.#start = handle.start;
    this.#base = memory.base;
    this.#ownSync = openAgain(handle);
    this.syncFd = this.#ownSync?.number ?? handle.fd;
  }

  close(): void {
    this.#ownSync?.close();
  }

  read(request: StoreRequest): number {
    return this.#transfer(false, request);
  }

  write(request: StoreRequest): number {
    return this.#transfer(true, request);
  }

  /** Repeats the call until everything is moved: it may move less and takes a limited list. */
  #transfer(isWrite: boolean, request: StoreRequest): number {
    const vectors = this.#vectors;
    const { data, dataOffset, offset, bytes } = request;
    for (let done = 0; done < bytes;) {
      vectors.count = 0;
      data.gather(vectors, this.#base, dataOffset + done, bytes - done);
      const moved = this.#call(
        isWrite,
        descriptorFor(this.#handle, request, done),
        this.#start + offset + done,
      );
      if (moved < 0) return -moved;
      done += moved;
    }
    return 0;
  }

  /** Moves what the vectors name; returns how much of it, or a negative errno. */
  #call(isWrite: boolean, fd: number, offset: number): number {
    for (let waited = 0;;) {
      const moved = isWrite
        ? writeVectors(fd, this.#vectors, offset)
        : readVectors(fd, this.#vectors, offset);
      if (moved > 0) return moved;
      // The file ends before its disk does, as another program truncated it.
      if (moved === 0) return isWrite ? -Errno.EIO : -Errno.ENODATA;
      const code = errno();
      if (code === Errno.EINTR) continue;
      if (code !== Errno.EAGAIN || waited++ >= EAGAIN_LIMIT_MS) return -code;
      pause(1);
    }
  }

  flush(): number {
    return attempt(() => dataSync(this.syncFd));
  }

  discard({ offset, bytes }: StoreRequest): number {
    const code = attempt(() =>
      this.#isBlockDevice
        ? blockDiscard(this.#fd, offset, bytes)
        : punchHole(this.#fd, this.#start + offset, bytes)
    );
    // A discard is advice, and what cannot take it need not.
    return isUnable(code) ? 0 : code;
  }

  secureErase({ offset, bytes }: StoreRequest): number {
    return attempt(() => blockSecureErase(this.#fd, this.#start + offset, bytes));
  }

  lifetime(): Lifetime {
    return readLifetime(this.#handle.lifetimePath!);
  }

  writeZeroes({ offset: place, bytes }: StoreRequest, unmap: boolean): number {
    const offset = this.#start + place;
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
      for (let left = bytes; left > 0; left -= ZEROES_BYTES) {
        if (!vectors.push(address, Math.min(left, ZEROES_BYTES))) break;
      }
      const moved = this.#call(true, this.#fd, offset);
      if (moved < 0) return -moved;
      offset += moved;
      bytes -= moved;
    }
    return 0;
  }
}

/** A descriptor for flushes; undefined where none is needed or possible. */
function openAgain({ fd, map }: FileHandle): Fd | undefined {
  // Data in memory is never lost on its way, and opening the file would break its lease.
  if (map !== undefined) return undefined;
  try {
    return reopenFile(fd, { nonblocking: true });
  } catch (error) {
    if (error instanceof LinuxError) return undefined;
    throw error;
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
