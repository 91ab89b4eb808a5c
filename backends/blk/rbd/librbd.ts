/**
 * Ceph's client libraries, librados and librbd.
 *
 * @module
 */

import { addressOf, pinnedBuffer } from "../../../src/linux/mod.ts";

// librados.h. Handles are numbers; calls that can wait run on Deno's threads for blocking calls.
const RADOS = {
  rados_create: { parameters: ["buffer", "buffer"], result: "i32" }, // cluster, id
  rados_conf_read_file: { parameters: ["u64", "buffer"], result: "i32" }, // cluster, path
  rados_conf_set: { parameters: ["u64", "buffer", "buffer"], result: "i32" }, // cluster, option, value
  rados_connect: { parameters: ["u64"], result: "i32", nonblocking: true }, // cluster
  rados_shutdown: { parameters: ["u64"], result: "void", nonblocking: true }, // cluster
  rados_ioctx_create: { parameters: ["u64", "u64", "u64"], result: "i32", nonblocking: true }, // cluster, pool_name, ioctx
  rados_ioctx_set_namespace: { parameters: ["u64", "buffer"], result: "void" }, // io, nspace
  rados_ioctx_destroy: { parameters: ["u64"], result: "void", nonblocking: true }, // io
} as const satisfies Deno.ForeignLibraryInterface;

// librbd.h
const RBD = {
  rbd_open: { parameters: ["u64", "u64", "u64", "u64"], result: "i32", nonblocking: true }, // io, name, image, snap_name
  rbd_open_read_only: {
    parameters: ["u64", "u64", "u64", "u64"],
    result: "i32",
    nonblocking: true,
  },
  rbd_close: { parameters: ["u64"], result: "i32", nonblocking: true }, // image
  rbd_lock_acquire: { parameters: ["u64", "i32"], result: "i32", nonblocking: true }, // image, lock_mode
  rbd_get_size: { parameters: ["u64", "u64"], result: "i32", nonblocking: true }, // image, size
  rbd_resize: { parameters: ["u64", "u64"], result: "i32", nonblocking: true }, // image, size
  rbd_set_image_notification: { parameters: ["u64", "i32", "i32"], result: "i32" }, // image, fd, type
  // The queue thread's. Arguments of 64 bits are BigInts that are read from an array on the spot: V8
  // passes those on without making an object.
  // The lower half of the pointer is enough to find a slot again
  rbd_aio_create_completion: { parameters: ["u32", "pointer", "buffer"], result: "i32" }, // cb_arg, complete_cb, c
  rbd_aio_readv: { parameters: ["u64", "buffer", "i32", "u64", "u64"], result: "i32" }, // image, iov, iovcnt, off, c
  rbd_aio_writev: { parameters: ["u64", "buffer", "i32", "u64", "u64"], result: "i32" },
  rbd_aio_flush: { parameters: ["u64", "u64"], result: "i32" }, // image, c
  rbd_aio_discard: { parameters: ["u64", "u64", "u64", "u64"], result: "i32" }, // image, off, len, c
  rbd_aio_write_zeroes: {
    parameters: ["u64", "u64", "u64", "u64", "i32", "i32"],
    result: "i32",
  }, // image, off, len, c, zero_flags, op_flags
  rbd_poll_io_events: { parameters: ["u64", "buffer", "i32"], result: "i32" }, // image, comps, numcomp
  rbd_aio_get_arg: { parameters: ["u64"], result: "u32" }, // c
  // The lower half of an ssize_t too: an errno, or the number of bytes of a request
  rbd_aio_get_return_value: { parameters: ["u64"], result: "i32" }, // c
  rbd_aio_release: { parameters: ["u64"], result: "void" }, // c
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of librados and librbd. */
export type Ceph =
  & Deno.DynamicLibrary<typeof RADOS>["symbols"]
  & Deno.DynamicLibrary<typeof RBD>["symbols"];

let library: Ceph | undefined;

/**
 * Loads the libraries, once for each thread.
 *
 * @throws {Error} When this machine does not have them.
 */
export function loadCeph(): Ceph {
  try {
    return library ??= {
      ...Deno.dlopen("librados.so.2", RADOS).symbols,
      ...Deno.dlopen("librbd.so.1", RBD).symbols,
    };
  } catch (cause) {
    throw new Error(
      "Disks in Ceph need librados.so.2 and librbd.so.1 of Ceph 15 or later: apt install librbd1",
      { cause },
    );
  }
}

let exitsAtOnce = false;

/**
 * Something was left with a cluster that does not answer: has the process end without the libraries'
 * own clean-up, which would take their memory from threads that still wait, and abort.
 */
export function exitAtOnce(): void {
  if (exitsAtOnce) return;
  exitsAtOnce = true;
  const { symbols: { _exit } } = Deno.dlopen("libc.so.6", {
    _exit: { parameters: ["i32"], result: "void" }, // status
  });
  globalThis.addEventListener("unload", () => _exit(Deno.exitCode));
}

/** A C string that stays where it is. Keep it until the call that got its address is done. */
export class Text {
  readonly bytes: Uint8Array<ArrayBuffer>;

  /** @param text A text without NUL */
  constructor(text: string) {
    const encoded = new TextEncoder().encode(text);
    this.bytes = new Uint8Array(pinnedBuffer(encoded.length + 1));
    this.bytes.set(encoded);
  }

  get address(): bigint {
    return BigInt(addressOf(this.bytes));
  }
}

/** A 64-bit variable for a result; keep it as a {@linkcode Text}. */
export class Variable {
  readonly bytes: BigUint64Array<ArrayBuffer> = new BigUint64Array(pinnedBuffer(8), 0, 1);

  get address(): bigint {
    return BigInt(addressOf(this.bytes));
  }

  get value(): bigint {
    return this.bytes[0];
  }
}
