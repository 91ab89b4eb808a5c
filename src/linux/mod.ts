/**
 * Linux, as far as vhostd needs it: the only floor that knows libc.
 *
 * @module
 */

export * from "./epoll.ts";
export * from "./errors.ts";
export * from "./evdev.ts";
export * from "./eventfd.ts";
export * from "./fd.ts";
export * from "./file.ts";
export * from "./io_uring.ts";
export { addressOf, errno, pinnedBuffer } from "./libc.ts";
export * from "./mapping.ts";
export * from "./memory_file.ts";
export * from "./reactor.ts";
export * from "./socket.ts";
export * from "./timerfd.ts";
export * from "./uring_reactor.ts";
