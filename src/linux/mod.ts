/**
 * Linux, as far as vhostd needs it: the only floor that knows libc.
 *
 * @module
 */

export * from "./account.ts";
export * from "./block_device.ts";
export * from "./clock.ts";
export * from "./epoll.ts";
export * from "./errors.ts";
export * from "./evdev.ts";
export * from "./eventfd.ts";
export * from "./fd.ts";
export * from "./file.ts";
export * from "./file_lease.ts";
export * from "./file_lock.ts";
export * from "./io_uring.ts";
export { addressOf, errno, pinnedBuffer } from "./libc.ts";
export * from "./mapping.ts";
export * from "./memory_fault.ts";
export * from "./memory_file.ts";
export * from "./path.ts";
export * from "./quarantine.ts";
export * from "./reactor.ts";
export * from "./signaller.ts";
export * from "./socket.ts";
export * from "./timerfd.ts";
export * from "./uring_reactor.ts";
