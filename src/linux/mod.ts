/**
 * Linux for devices: files, sockets, descriptors, waits, io_uring and memory, by libc and without a
 * permission of Deno's beside `--allow-ffi`.
 *
 * Calls that fail throw {@linkcode LinuxError}, except where a comment says that they return a
 * negative number: then {@linkcode errno}, read at once, says why. Descriptors are plain numbers,
 * which any thread may use; {@linkcode Fd} is one that has an owner. Sizes and offsets are bytes,
 * and addresses are numbers (user space ends below 2^47).
 *
 * @example A socket that is read when something comes
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { UnixConnection, watch, watchesEnded } from "@vhostd/vhostd/linux";
 *
 * const [near, far] = UnixConnection.pair();
 * const readable = Promise.withResolvers<void>();
 * const watching = watch(near.fd.number, "readable", readable.resolve);
 * await far.send(Uint8Array.of(1, 2, 3));
 * await readable.promise;
 * watching[Symbol.dispose]();
 * const bytes = new Uint8Array(16);
 * assertEquals(await near.receiveSome(bytes), 3);
 * near[Symbol.dispose]();
 * far[Symbol.dispose]();
 * await watchesEnded();
 * ```
 *
 * @module
 */

// Errors
export { check, Errno, errnoName, LinuxError, plainMessage, retry } from "./errors.ts";
export { errno } from "./libc.ts";

// Descriptors
export {
  closeAll,
  duplicateFd,
  Fd,
  ioctl,
  readNow,
  setCloseOnExec,
  setNonblocking,
  writeNow,
} from "./fd.ts";

// Files
export {
  CURRENT_POSITION,
  dataSync,
  type DirectAlignment,
  directAlignment,
  FALLOCATE_PUNCH_HOLE,
  fileBytes,
  type FileKind,
  fileKind,
  type FileStat,
  fileStat,
  IoVectors,
  isInMemory,
  MAX_IO_VECTORS,
  openFile,
  type OpenOptions,
  punchHole,
  readBytes,
  readList,
  readVectors,
  reopenFile,
  resizeFile,
  writeBytes,
  writeVectors,
  zeroRange,
} from "./file/file.ts";
export { AppendedFile } from "./file/appended_file.ts";
export * from "./file/file_lease.ts";
export * from "./file/file_lock.ts";
export { noteNewFile } from "./file/new_files.ts";
export {
  createFile,
  kindAt,
  readKernelFile,
  readLink,
  removeName,
  type SocketAccess,
} from "./file/path.ts";

// Captures
export { CaptureFile } from "./capture/capture_file.ts";
export { CaptureStream } from "./capture/capture_stream.ts";
/** Blocks of pcapng files. */
export * as pcapng from "./capture/pcapng.ts";

// Sockets
export { type Received, UnixConnection } from "./socket/connection.ts";
export { EndpointError, expectSocketPath, listenOnPath } from "./socket/listen_on_path.ts";
export { UnixListener } from "./socket/listener.ts";
export {
  connectStream,
  listenStream,
  lookUpStreamAddress,
  type StreamAddress,
} from "./socket/stream_address.ts";
export {
  hasHungUp,
  type InheritedSocket,
  inspectSocket,
  isPacketSocket,
  MAX_SOCKET_PATH_BYTES,
} from "./socket/unix_socket.ts";

// Network interfaces
export {
  adoptTap,
  attachTapQueue,
  NetworkInterface,
  openTap,
  setTapCarrier,
  setTapOffload,
  TapOffload,
} from "./tap.ts";

// Waits
export { elapsed, microseconds, stampTime } from "./clock.ts";
export {
  countSignals,
  createEventfd,
  drainEventfd,
  isEventfd,
  signalEventfd,
} from "./wait/eventfd.ts";
export { ready, watch, watchesEnded, watchSignals } from "./wait/reactor.ts";
export { createTimer, createTimerfd, setTimer } from "./wait/timerfd.ts";
export type { Readiness, Watch } from "./wait/watch.ts";

// io_uring
export { IORING_CQE_F_MORE, IoUring } from "./wait/io_uring.ts";
export type { IoCallbacks, IoUser, ThreadIo } from "./wait/uring_reactor.ts";

// Memory
export { addressOf, pinnedBuffer, pinnedString } from "./libc.ts";
export {
  bufferAt,
  copyBetween,
  copyMemory,
  createMemfd,
  enterPages,
  Mapping,
  PAGE_BYTES,
  residentPages,
} from "./mapping.ts";
