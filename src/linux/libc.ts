/**
 * The one table of libc symbols, and helpers for calling them.
 *
 * @module
 */

/** The symbols of libc that are used. */
const symbols = {
  __errno_location: { parameters: [], result: "pointer" },
  strerror: { parameters: ["i32"], result: "pointer" },
  // clock
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" }, // clockid, tp
  // fd
  close: { parameters: ["i32"], result: "i32" },
  close_async: { name: "close", parameters: ["i32"], result: "i32", nonblocking: true },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" }, // fd, cmd, arg
  fcntl_async: {
    name: "fcntl",
    parameters: ["i32", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  dup3: { parameters: ["i32", "i32", "i32"], result: "i32" }, // oldfd, newfd, flags
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" }, // resource, rlim
  fcntl_lock: { name: "fcntl", parameters: ["i32", "i32", "buffer"], result: "i32" }, // fd, cmd, lock
  ioctl: { parameters: ["i32", "u32", "buffer"], result: "i32" }, // fd, request, argp
  ioctl_number: { name: "ioctl", parameters: ["i32", "u32", "u64"], result: "i32" }, // fd, request, arg
  read: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // fd, buf, count
  write: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // fd, buf, count
  write_async: {
    name: "write",
    parameters: ["i32", "pointer", "u32"],
    result: "i32",
    nonblocking: true,
  },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" }, // pipefd, flags
  poll: { parameters: ["buffer", "u32", "i32"], result: "i32" }, // fds, nfds, timeout
  // eventfd, timerfd, epoll
  eventfd: { parameters: ["u32", "i32"], result: "i32" }, // initval, flags
  timerfd_create: { parameters: ["i32", "i32"], result: "i32" }, // clockid, flags
  timerfd_settime: { parameters: ["i32", "i32", "buffer", "pointer"], result: "i32" }, // fd, flags, new, old
  epoll_create1: { parameters: ["i32"], result: "i32" }, // flags
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // epfd, op, fd, event
  epoll_wait: { parameters: ["i32", "pointer", "i32", "i32"], result: "i32" }, // epfd, events, maxevents, timeout
  epoll_wait_async: {
    name: "epoll_wait",
    parameters: ["i32", "pointer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  // sockets
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" }, // domain, type, protocol
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // domain, type, protocol, sv
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // sockfd, addr, addrlen
  listen: { parameters: ["i32", "i32"], result: "i32" }, // sockfd, backlog
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" }, // sockfd, addr, addrlen, flags
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // sockfd, addr, addrlen
  shutdown: { parameters: ["i32", "i32"], result: "i32" }, // sockfd, how
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // fd, addr, addrlen
  getsockopt: {
    parameters: ["i32", "i32", "i32", "buffer", "buffer"],
    result: "i32",
  }, // sockfd, level, optname, optval, optlen
  setsockopt: {
    parameters: ["i32", "i32", "i32", "buffer", "u32"],
    result: "i32",
  }, // sockfd, level, optname, optval, optlen
  getaddrinfo_async: {
    name: "getaddrinfo",
    parameters: ["pointer", "pointer", "pointer", "pointer"],
    result: "i32",
    nonblocking: true,
  },
  freeaddrinfo: { parameters: ["pointer"], result: "void" }, // res
  gai_strerror: { parameters: ["i32"], result: "pointer" }, // errcode
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // sockfd, msg, flags
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // sockfd, msg, flags
  recvmsg_async: {
    name: "recvmsg",
    parameters: ["i32", "pointer", "i32"],
    result: "i32",
    nonblocking: true,
  },
  // memory
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" }, // name, flags
  ftruncate: { parameters: ["i32", "i64"], result: "i32" }, // fd, length
  mmap: {
    parameters: ["u64", "u64", "i32", "i32", "i32", "i64"],
    result: "u64",
  }, // addr, length, prot, flags, fd, offset
  munmap: { parameters: ["u64", "u64"], result: "i32" }, // addr, length
  mremap: { parameters: ["u64", "u64", "u64", "i32", "u64"], result: "u64" }, // old, old_size, new_size, flags, new
  mincore: { parameters: ["u64", "u64", "buffer"], result: "i32" }, // addr, length, vec
  memcpy: { parameters: ["u64", "u64", "u32"], result: "void" }, // dest, src, n
  madvise: { parameters: ["u64", "u64", "i32"], result: "i32" }, // addr, length, advice
  sigaction: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // signum, act, oldact
  // files
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" }, // pathname, flags, mode
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" }, // fd, offset, whence
  pread: { parameters: ["i32", "u64", "u32", "i64"], result: "i32" }, // fd, buf, count, offset
  pwrite: { parameters: ["i32", "u64", "u32", "i64"], result: "i32" }, // fd, buf, count, offset
  readv: { parameters: ["i32", "u64", "i32"], result: "i32" }, // fd, iov, iovcnt
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" }, // fd, iov, iovcnt, offset, flags
  pwritev2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" }, // fd, iov, iovcnt, offset, flags
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" }, // dirfd, pathname, flags, mask, statxbuf
  fstatfs: { parameters: ["i32", "buffer"], result: "i32" }, // fd, buf
  mkfifo: { parameters: ["buffer", "u32"], result: "i32" }, // pathname, mode
  umask: { parameters: ["u32"], result: "u32" }, // mask
  fchmod: { parameters: ["i32", "u32"], result: "i32" }, // fd, mode
  chmod: { parameters: ["buffer", "u32"], result: "i32" }, // pathname, mode
  fchownat: { parameters: ["i32", "buffer", "u32", "u32", "i32"], result: "i32" }, // dirfd, pathname, owner, group, flags
  unlink: { parameters: ["buffer"], result: "i32" }, // pathname
  rename: { parameters: ["buffer", "buffer"], result: "i32" }, // oldpath, newpath
  link: { parameters: ["buffer", "buffer"], result: "i32" }, // oldpath, newpath
  readlink: { parameters: ["buffer", "buffer", "u32"], result: "i32" }, // pathname, buf, bufsiz
  fdatasync: { parameters: ["i32"], result: "i32" }, // fd
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" }, // fd, mode, offset, len
  signal: { parameters: ["i32", "u64"], result: "u64" }, // signum, handler
  // other processes; older libcs have no wrappers
  syscall_pidfd_open: { name: "syscall", parameters: ["u32", "i32", "u32"], result: "i32" }, // number, pid, flags
  syscall_pidfd_getfd: {
    name: "syscall",
    parameters: ["u32", "i32", "i32", "u32"], // number, pidfd, targetfd, flags
    result: "i32",
  },
  // accounts
  getpwnam: { parameters: ["buffer"], result: "pointer" }, // name
  getgrnam: { parameters: ["buffer"], result: "pointer" }, // name
  // asynchronous I/O and io_uring have no wrappers in libc
  syscall_io_setup: { name: "syscall", parameters: ["u32", "u32", "buffer"], result: "i32" }, // number, nr_events, ctx_idp
  syscall_io_destroy: { name: "syscall", parameters: ["u32", "u64"], result: "i32" }, // number, ctx_id
  syscall_io_submit: {
    name: "syscall",
    parameters: ["u32", "u64", "u32", "pointer"], // number, ctx_id, nr, iocbpp
    result: "i32",
  },
  syscall_io_uring_setup: {
    name: "syscall",
    parameters: ["u32", "u32", "buffer"], // number, entries, params
    result: "i32",
  },
  syscall_io_uring_enter: {
    name: "syscall",
    parameters: ["u32", "i32", "u32", "u32", "u32", "pointer", "u32"], // number, fd, to_submit, min_complete, flags, arg, argsz
    result: "i32",
  },
  syscall_io_uring_register: {
    name: "syscall",
    parameters: ["u32", "i32", "u32", "buffer", "u32"], // number, fd, opcode, arg, nr_args
    result: "i32",
  },
} as const satisfies Deno.ForeignLibraryInterface;

type Libc = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** Looks a function of libc up, with a clear error. */
function lookUp<Name extends keyof Libc>(name: Name): Libc[Name] {
  try {
    return Deno.dlopen("libc.so.6", { [name]: symbols[name] } as unknown as typeof symbols)
      .symbols[name];
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) {
      throw new Deno.errors.NotCapable(
        "vhostd calls libc: run it with --allow-ffi (without a path; a scoped permission is not enough)",
        { cause },
      );
    }
    throw new Error(`Cannot load ${name} of libc.so.6`, { cause });
  }
}

function openLibc(): Libc {
  if (
    Deno.build.os !== "linux" ||
    !["x86_64", "aarch64"].includes(Deno.build.arch)
  ) {
    throw new Error(
      `vhostd runs on Linux on x86_64 or aarch64, not on ${Deno.build.os} on ${Deno.build.arch}`,
    );
  }
  const lookups = {};
  for (const name of Object.keys(symbols) as (keyof Libc)[]) {
    Object.defineProperty(lookups, name, {
      enumerable: true,
      get(this: object) {
        const value = lookUp(name);
        Object.defineProperty(this, name, { value });
        return value;
      },
    });
  }
  return Object.create(lookups);
}

/**
 * libc's functions, by name. Each is looked up when it is first used, because Deno then compiles a
 * trampoline: for all of them that takes as long as starting Deno, on each thread.
 *
 * Deno's test runner counts a lookup as a leak, so `tests/preload.ts` looks everything up first.
 */
export const libc: Libc = openLibc();

const errnoView = new Int32Array(
  Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4),
);

/**
 * The errno of this thread's last failed call. Read it at once; after a
 * nonblocking call it means nothing.
 */
export function errno(): number {
  return errnoView[0];
}

/**
 * Text as libc takes it: UTF-8, ended by a zero byte.
 *
 * @throws {TypeError} When it has a zero byte itself.
 */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new TypeError("Expected a text without zero bytes");
  }
  return new TextEncoder().encode(text + "\0");
}

/** The address of a buffer, as a number (user space ends below 2^47). */
export function addressOf(buffer: BufferSource): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)));
}

/**
 * A buffer whose address libc may keep: an `ArrayBuffer` of its own of at
 * least a page, which V8 does not move. Keep a reference to it.
 */
export function pinnedBuffer(bytes: number): ArrayBuffer {
  return new ArrayBuffer(Math.max(bytes, 4096));
}

/** Text as C takes it, at an address that libraries may keep: see {@linkcode pinnedBuffer}. */
export function pinnedString(text: string): Uint8Array<ArrayBuffer> {
  const bytes = cString(text);
  const pinned = new Uint8Array(pinnedBuffer(bytes.length));
  pinned.set(bytes);
  return pinned;
}
