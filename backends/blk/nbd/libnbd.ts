/**
 * libnbd's functions: libnbd(3) and the page of each.
 *
 * @module
 */

import { pinnedBuffer } from "../../../src/linux/mod.ts";

/** A struct of a callback, what it is called with, and what frees that; all null here. */
const CALLBACK = { struct: ["pointer", "pointer", "pointer"] } as const;

/**
 * Commands with data: h, buf, count, offset, then the callback and the flags. Deno is slow with
 * structs, so the null callback is written out. On x86-64, a struct of this size goes to the stack:
 * the fifth register has the flags, the sixth nothing, and three words follow. On aarch64, the fifth
 * has the struct's address and the sixth the flags, and nothing looks at the words.
 */
const DATA = [
  ...["pointer", "u64", "u32", "u64"] as const,
  ...["pointer", "u32", "u64", "u64", "u64"] as const,
] as const;

const noCallback = new Uint8Array(pinnedBuffer(24));

/** The fifth argument of commands with data; the others behind it are 0. */
export const NO_CALLBACK: Deno.PointerValue = Deno.build.arch === "x86_64"
  ? null
  : Deno.UnsafePointer.of(noCallback);

/** The callback of other commands: the bytes of its struct. */
export const NO_CALLBACK_STRUCT: Uint8Array<ArrayBuffer> = new Uint8Array(24);

const symbols = {
  create: { name: "nbd_create", parameters: [], result: "pointer" },
  close: { name: "nbd_close", parameters: ["pointer"], result: "void" },
  get_error: { name: "nbd_get_error", parameters: [], result: "pointer" },
  get_errno: { name: "nbd_get_errno", parameters: [], result: "i32" },
  // settings
  set_export_name: {
    name: "nbd_set_export_name",
    parameters: ["pointer", "buffer"],
    result: "i32",
  },
  set_tls: { name: "nbd_set_tls", parameters: ["pointer", "i32"], result: "i32" },
  set_tls_certificates: {
    name: "nbd_set_tls_certificates",
    parameters: ["pointer", "buffer"],
    result: "i32",
  },
  set_tls_psk_file: {
    name: "nbd_set_tls_psk_file",
    parameters: ["pointer", "buffer"],
    result: "i32",
  },
  set_tls_username: {
    name: "nbd_set_tls_username",
    parameters: ["pointer", "buffer"],
    result: "i32",
  },
  set_tls_verify_peer: {
    name: "nbd_set_tls_verify_peer",
    parameters: ["pointer", "bool"],
    result: "i32",
  },
  set_structured: {
    name: "nbd_set_request_structured_replies",
    parameters: ["pointer", "bool"],
    result: "i32",
  },
  set_pread_initialize: {
    name: "nbd_set_pread_initialize",
    parameters: ["pointer", "bool"],
    result: "i32",
  },
  // connecting
  aio_connect_unix: {
    name: "nbd_aio_connect_unix",
    parameters: ["pointer", "buffer"],
    result: "i32",
  },
  /** Looks the host's name up, which may take long: by a thread of Deno's, or here. */
  aio_connect_tcp: {
    name: "nbd_aio_connect_tcp",
    parameters: ["pointer", "pointer", "pointer"], // h, hostname, port
    result: "i32",
    nonblocking: true,
  },
  aio_connect_tcp_here: {
    name: "nbd_aio_connect_tcp",
    parameters: ["pointer", "buffer", "buffer"], // h, hostname, port
    result: "i32",
  },
  aio_disconnect: { name: "nbd_aio_disconnect", parameters: ["pointer", "u32"], result: "i32" },
  aio_is_ready: { name: "nbd_aio_is_ready", parameters: ["pointer"], result: "i32" },
  aio_is_dead: { name: "nbd_aio_is_dead", parameters: ["pointer"], result: "i32" },
  aio_is_closed: { name: "nbd_aio_is_closed", parameters: ["pointer"], result: "i32" },
  aio_get_fd: { name: "nbd_aio_get_fd", parameters: ["pointer"], result: "i32" },
  aio_get_direction: { name: "nbd_aio_get_direction", parameters: ["pointer"], result: "u32" },
  aio_notify_read: { name: "nbd_aio_notify_read", parameters: ["pointer"], result: "i32" },
  aio_notify_write: { name: "nbd_aio_notify_write", parameters: ["pointer"], result: "i32" },
  // what the server said
  get_size: { name: "nbd_get_size", parameters: ["pointer"], result: "i64" },
  get_block_size: { name: "nbd_get_block_size", parameters: ["pointer", "i32"], result: "i64" },
  is_read_only: { name: "nbd_is_read_only", parameters: ["pointer"], result: "i32" },
  can_flush: { name: "nbd_can_flush", parameters: ["pointer"], result: "i32" },
  can_trim: { name: "nbd_can_trim", parameters: ["pointer"], result: "i32" },
  can_zero: { name: "nbd_can_zero", parameters: ["pointer"], result: "i32" },
  can_multi_conn: { name: "nbd_can_multi_conn", parameters: ["pointer"], result: "i32" },
  get_structured: {
    name: "nbd_get_structured_replies_negotiated",
    parameters: ["pointer"],
    result: "i32",
  },
  // Commands. Each returns its cookie, a 64-bit number that counts from 1, of which the lower half
  // tells those in flight apart; -1 when it was refused.
  aio_pread: { name: "nbd_aio_pread", parameters: DATA, result: "u32" },
  aio_pwrite: { name: "nbd_aio_pwrite", parameters: DATA, result: "u32" },
  aio_flush: {
    name: "nbd_aio_flush",
    parameters: ["pointer", CALLBACK, "u32"], // h, completion, flags
    result: "u32",
  },
  aio_trim: {
    name: "nbd_aio_trim",
    parameters: ["pointer", "u64", "u64", CALLBACK, "u32"], // h, count, offset, completion, flags
    result: "u32",
  },
  aio_zero: {
    name: "nbd_aio_zero",
    parameters: ["pointer", "u64", "u64", CALLBACK, "u32"],
    result: "u32",
  },
  aio_peek_command_completed: {
    name: "nbd_aio_peek_command_completed",
    parameters: ["pointer"],
    result: "u32", // the lower half of a cookie; 0 when none is completed
  },
  aio_command_completed: {
    name: "nbd_aio_command_completed",
    parameters: ["pointer", "u64"], // h, cookie
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

/** libnbd's functions, by their names without `nbd_`. */
export type Libnbd = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** A handle of libnbd: a connection. */
export type NbdHandle = Deno.PointerObject;

let loaded: Libnbd | undefined;

/**
 * Loads libnbd, once per thread.
 *
 * @throws {Error} When this machine lacks it.
 */
export function libnbd(): Libnbd {
  try {
    return loaded ??= Deno.dlopen("libnbd.so.0", symbols).symbols;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new Error(
      `Disks of NBD servers need libnbd, which cannot be loaded: apt install libnbd0 (${
        (cause as Error).message
      })`,
      { cause },
    );
  }
}

/** The latest error of libnbd on this thread, in its words. */
export function nbdError(): string {
  const text = libnbd().get_error();
  const words = text === null ? "unknown error" : Deno.UnsafePointerView.getCString(text);
  return words.replace(/^(nbd_\w+: )+/, "");
}

/** Directions of nbd_aio_get_direction. */
export const DIRECTION_READ = 1, DIRECTION_WRITE = 2;

/** Sizes of nbd_get_block_size. */
export const SIZE_MINIMUM = 0, SIZE_MAXIMUM = 2;

/** TLS or nothing, of nbd_set_tls. */
export const TLS_REQUIRE = 2;
