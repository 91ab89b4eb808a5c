/**
 * Linux, as far as vhostd needs it: the only floor that knows libc.
 *
 * @module
 */

export * from "./account.ts";
export * from "./file/block_device.ts";
export * from "./clock.ts";
export * from "./wait/epoll.ts";
export * from "./errors.ts";
export * from "./evdev.ts";
export * from "./wait/eventfd.ts";
export * from "./fd.ts";
export * from "./file/file.ts";
export * from "./file/file_lease.ts";
export * from "./file/file_lock.ts";
export * from "./wait/io_uring.ts";
export { addressOf, errno, pinnedBuffer } from "./libc.ts";
export * from "./mapping.ts";
export * from "./file/memory_file.ts";
export * from "./file/path.ts";
export * from "./quarantine.ts";
export * from "./wait/reactor.ts";
export * from "./wait/signaller.ts";
export * from "./socket.ts";
export * from "./wait/timerfd.ts";
export * from "./wait/uring_reactor.ts";
export type { Readiness, Watch } from "./wait/watch.ts";
