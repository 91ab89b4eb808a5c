/**
 * io_uring: many operations submitted and waited for with one system call.
 *
 * The rings are shared with the kernel and driven by typed arrays: nothing is
 * allocated per operation, and 64-bit fields are written as halves. One thread
 * owns an instance.
 *
 * Source: io_uring(7), io_uring_enter(2), `linux/io_uring.h`.
 *
 * @module
 */

import { check, Errno, LinuxError } from "../errors.ts";
import { Fd } from "../fd.ts";
import { errno, libc, pinnedBuffer } from "../libc.ts";
import { Mapping } from "../mapping.ts";

// The same numbers on x86-64 and aarch64.
const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;
const SYS_IO_URING_REGISTER = 427;

const IORING_OFF_SQ_RING = 0;
const IORING_OFF_CQ_RING = 0x800_0000;
const IORING_OFF_SQES = 0x1000_0000;

const IORING_SETUP_CLAMP = 1 << 4;
const IORING_SETUP_COOP_TASKRUN = 1 << 8;
const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
const IORING_SQ_TASKRUN = 1 << 2;
const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
const MODERN_FLAGS = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
  IORING_SETUP_TASKRUN_FLAG;
const IORING_FEAT_NODROP = 1 << 1;
const IORING_ENTER_GETEVENTS = 1;
const IORING_REGISTER_FILES = 2;
const IORING_UNREGISTER_FILES = 3;
const IOSQE_FIXED_FILE = 1;

/** Operations. */
const IORING_OP_READV = 1;
const IORING_OP_WRITEV = 2;
const IORING_OP_FSYNC = 3;
const IORING_OP_POLL_ADD = 6;
const IORING_OP_POLL_REMOVE = 7;
const IORING_OP_ACCEPT = 13;
const IORING_OP_ASYNC_CANCEL = 14;
const IORING_OP_FALLOCATE = 17;
const IORING_OP_READ = 22;
const IORING_OP_WRITE = 23;
const IORING_OP_SEND = 26;
const IORING_OP_RECV = 27;
const IORING_FSYNC_DATASYNC = 1;
const IORING_POLL_ADD_MULTI = 1;
const IORING_ACCEPT_MULTISHOT = 1;
const SOCK_CLOEXEC_NONBLOCK = 0o2004000;

/** A completion's flag: a multishot operation continues. */
export const IORING_CQE_F_MORE = 2;

const SQE_WORDS = 16;
const CQE_WORDS = 4;

/**
 * An io_uring instance of the thread that made it.
 *
 * Each operation is prepared with `data`, an unsigned 32-bit number that its completion has. There
 * must be {@linkcode IoUring.room} for it, and memory at an address that it names must stay where
 * it is until it completes. Addresses, sizes and offsets are bytes, and `file` is a descriptor or
 * what {@linkcode IoUring.registerFiles} returned. The offset of a stream, such as a socket, a pipe
 * or a TAP, is {@linkcode CURRENT_POSITION}; operations on it wait, also where O_NONBLOCK is set.
 */
export class IoUring implements Disposable {
  readonly #fd: Fd;
  readonly #rings: Mapping[] = [];
  readonly #sqHead: number;
  readonly #sqTail: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #sqFlags: number;
  readonly #sqMask: number;
  readonly #cqMask: number;
  readonly #cqes: number;
  readonly #sq: Uint32Array<ArrayBuffer>;
  readonly #cq: Uint32Array<ArrayBuffer>;
  readonly #sqes: Uint32Array<ArrayBuffer>;
  #tail: number;
  #submitted: number;
  #hasFiles = false;

  /**
   * Makes an instance.
   *
   * @param entries How many operations can be prepared before they are submitted.
   * @throws {LinuxError} ENOSYS, EPERM or EINVAL where the kernel has none,
   * forbids it, or is too old.
   */
  constructor(entries: number) {
    const parameters = new Uint32Array(pinnedBuffer(120), 0, 30);
    let fd = -1;
    // The newest way first: completions do not interrupt the thread while it
    // runs. DEFER_TASKRUN would go further, but then a poll of the instance's
    // descriptor is not woken, by which the event loop waits.
    for (const flags of [MODERN_FLAGS, 0]) {
      parameters.fill(0);
      parameters[2] = flags | IORING_SETUP_CLAMP;
      fd = libc.syscall_io_uring_setup(SYS_IO_URING_SETUP, entries, parameters);
      if (fd >= 0 || errno() !== Errno.EINVAL) break;
    }
    this.#fd = new Fd(check(fd, "io_uring_setup"));
    try {
      const sqEntries = parameters[0], cqEntries = parameters[1];
      if ((parameters[5] & IORING_FEAT_NODROP) === 0) {
        throw new LinuxError("io_uring_setup", Errno.EINVAL, "completions could be lost");
      }
      // struct io_sqring_offsets at byte 40, struct io_cqring_offsets at byte 80.
      const sqOffsets = parameters.subarray(10, 18), cqOffsets = parameters.subarray(20, 28);
      const sqBytes = sqOffsets[6] + sqEntries * 4;
      const cqBytes = cqOffsets[5] + cqEntries * 16;
      const sq = this.#map(sqBytes, IORING_OFF_SQ_RING);
      const cq = this.#map(cqBytes, IORING_OFF_CQ_RING);
      const sqes = this.#map(sqEntries * SQE_WORDS * 4, IORING_OFF_SQES);
      this.#sq = new Uint32Array(sq.buffer, 0, sqBytes >>> 2);
      this.#cq = new Uint32Array(cq.buffer, 0, cqBytes >>> 2);
      this.#sqes = new Uint32Array(sqes.buffer);
      [this.#sqHead, this.#sqTail] = [sqOffsets[0] >>> 2, sqOffsets[1] >>> 2];
      this.#sqFlags = sqOffsets[4] >>> 2;
      [this.#cqHead, this.#cqTail] = [cqOffsets[0] >>> 2, cqOffsets[1] >>> 2];
      this.#sqMask = this.#sq[sqOffsets[2] >>> 2];
      this.#cqMask = this.#cq[cqOffsets[2] >>> 2];
      this.#cqes = cqOffsets[5] >>> 2;
      // Entry i of the index array always names SQE i.
      for (let i = 0; i < sqEntries; i++) this.#sq[(sqOffsets[6] >>> 2) + i] = i;
      this.#tail = this.#submitted = this.#sq[this.#sqTail];
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #map(bytes: number, offset: number): Mapping {
    const mapping = new Mapping(this.#fd.number, bytes, offset);
    this.#rings.push(mapping);
    return mapping;
  }

  /** How many operations can still be prepared. */
  get room(): number {
    return this.#sqMask + 1 - ((this.#tail - Atomics.load(this.#sq, this.#sqHead)) >>> 0);
  }

  /**
   * Registers files, which saves the kernel to look them up for each operation. An instance takes
   * one such list at a time.
   *
   * @returns The numbers, all negative, that stand for the files in operations.
   * @throws {LinuxError} When the kernel refuses; EBUSY while another list is registered.
   */
  registerFiles(fds: readonly number[]): number[] {
    const list = new Int32Array(pinnedBuffer(fds.length * 4), 0, fds.length);
    list.set(fds);
    check(this.#register(IORING_REGISTER_FILES, list, fds.length), "io_uring_register");
    this.#hasFiles = true;
    return fds.map((_, index) => ~index);
  }

  /**
   * Registers files no longer: the kernel lets go of them now, and not some time
   * after the instance has ended. Nothing may be in flight on them.
   */
  unregisterFiles(): void {
    if (this.#hasFiles) this.#register(IORING_UNREGISTER_FILES, null, 0);
    this.#hasFiles = false;
  }

  #register(opcode: number, list: Int32Array<ArrayBuffer> | null, count: number): number {
    const { number } = this.#fd;
    return libc.syscall_io_uring_register(SYS_IO_URING_REGISTER, number, opcode, list, count);
  }

  /** The instance's descriptor, which is readable when something completed; it stays this object's. */
  get fd(): number {
    return this.#fd.number;
  }

  /** Begins an operation; returns where its SQE is, in words. There must be room. */
  #begin(opcode: number, file: number, data: number): number {
    const at = (this.#tail & this.#sqMask) * SQE_WORDS;
    const sqes = this.#sqes;
    sqes.fill(0, at, at + SQE_WORDS);
    sqes[at] = file < 0 ? opcode | IOSQE_FIXED_FILE << 8 : opcode;
    sqes[at + 1] = file < 0 ? ~file : file;
    sqes[at + 8] = data;
    this.#tail = (this.#tail + 1) >>> 0;
    return at;
  }

  /** Begins an operation that names memory (or something else of 64 bits), and an offset. */
  #transfer(
    opcode: number,
    file: number,
    address: number,
    length: number,
    offset: number,
    data: number,
  ): number {
    const at = this.#begin(opcode, file, data);
    const sqes = this.#sqes;
    sqes[at + 2] = offset >>> 0;
    sqes[at + 3] = Math.floor(offset / 2 ** 32) >>> 0;
    sqes[at + 4] = address >>> 0;
    sqes[at + 5] = (address / 2 ** 32) >>> 0;
    sqes[at + 6] = length;
    return at;
  }

  /** Reads at an offset into memory at an address. */
  read(file: number, address: number, bytes: number, offset: number, data: number): void {
    this.#transfer(IORING_OP_READ, file, address, bytes, offset, data);
  }

  /** Writes at an offset from memory at an address. */
  write(file: number, address: number, bytes: number, offset: number, data: number): void {
    this.#transfer(IORING_OP_WRITE, file, address, bytes, offset, data);
  }

  /** Reads at an offset into `count` iovec entries at an address. */
  readVectors(file: number, vectors: number, count: number, offset: number, data: number): void {
    this.#transfer(IORING_OP_READV, file, vectors, count, offset, data);
  }

  /** Writes at an offset from `count` iovec entries at an address. */
  writeVectors(file: number, vectors: number, count: number, offset: number, data: number): void {
    this.#transfer(IORING_OP_WRITEV, file, vectors, count, offset, data);
  }

  /** Receives from a socket into memory at an address; `flags` are recv(2)'s. */
  receive(file: number, address: number, bytes: number, flags: number, data: number): void {
    const at = this.#transfer(IORING_OP_RECV, file, address, bytes, 0, data);
    this.#sqes[at + 7] = flags;
  }

  /** Sends to a socket from memory at an address; `flags` are send(2)'s. */
  send(file: number, address: number, bytes: number, flags: number, data: number): void {
    const at = this.#transfer(IORING_OP_SEND, file, address, bytes, 0, data);
    this.#sqes[at + 7] = flags;
  }

  /**
   * Accepts a connection of a listening socket; the result is its descriptor, non-blocking. With
   * `multishot` it accepts one after the other, until a completion lacks IORING_CQE_F_MORE.
   */
  accept(file: number, data: number, multishot: boolean): void {
    const at = this.#begin(IORING_OP_ACCEPT, file, data);
    if (multishot) this.#sqes[at] |= IORING_ACCEPT_MULTISHOT << 16;
    this.#sqes[at + 7] = SOCK_CLOEXEC_NONBLOCK;
  }

  /** Makes data durable (fdatasync). */
  dataSync(file: number, data: number): void {
    const at = this.#begin(IORING_OP_FSYNC, file, data);
    this.#sqes[at + 7] = IORING_FSYNC_DATASYNC;
  }

  /** Allocates, frees or zeroes a range; `mode` is fallocate(2)'s. */
  allocate(file: number, mode: number, offset: number, bytes: number, data: number): void {
    // fallocate's length stands where other operations have an address.
    this.#transfer(IORING_OP_FALLOCATE, file, bytes, mode, offset, data);
  }

  /**
   * Completes when a descriptor is ready, with the events that it is ready for; with `multishot`
   * each time it becomes so, until a completion lacks IORING_CQE_F_MORE.
   */
  poll(file: number, events: number, data: number, multishot: boolean): void {
    const at = this.#begin(IORING_OP_POLL_ADD, file, data);
    this.#sqes[at + 6] = multishot ? IORING_POLL_ADD_MULTI : 0;
    this.#sqes[at + 7] = events;
  }

  /** Ends the poll that has `target` as its data. */
  pollRemove(target: number, data: number): void {
    this.#sqes[this.#begin(IORING_OP_POLL_REMOVE, 0, data) + 4] = target;
  }

  /** Asks the kernel to give up the operation that has `target` as its data, if it still can. */
  cancel(target: number, data: number): void {
    this.#sqes[this.#begin(IORING_OP_ASYNC_CANCEL, 0, data) + 4] = target;
  }

  /**
   * Submits what was prepared and, with `wait`, blocks until something
   * completed. One system call, and none when there is nothing to do.
   */
  enter(wait: boolean): void {
    Atomics.store(this.#sq, this.#sqTail, this.#tail | 0);
    for (;;) {
      const pending = (this.#tail - this.#submitted) >>> 0;
      if (wait && this.hasCompletions) wait = false;
      if (pending === 0 && !wait && !this.#hasWork) return;
      const count = libc.syscall_io_uring_enter(
        SYS_IO_URING_ENTER,
        this.#fd.number,
        pending,
        wait ? 1 : 0,
        IORING_ENTER_GETEVENTS,
        null,
        0,
      );
      if (count >= 0) {
        this.#submitted = (this.#submitted + count) >>> 0;
        if (count === pending) return;
        continue;
      }
      const code = errno();
      if (code === Errno.EINTR) return;
      // The kernel is short of memory, or has completions that were not taken yet:
      // take those first, then try again.
      if (code === Errno.EAGAIN || code === Errno.EBUSY) return;
      throw new LinuxError("io_uring_enter", code);
    }
  }

  /** Whether the kernel has completions that it delivers only in a call. */
  get #hasWork(): boolean {
    return (Atomics.load(this.#sq, this.#sqFlags) & IORING_SQ_TASKRUN) !== 0;
  }

  /** Whether there is nothing to submit and nothing to take. */
  get isIdle(): boolean {
    return this.#tail === this.#submitted && !this.hasCompletions && !this.#hasWork;
  }

  /** Whether {@linkcode IoUring.complete} would find something. */
  get hasCompletions(): boolean {
    return Atomics.load(this.#cq, this.#cqTail) !== this.#cq[this.#cqHead];
  }

  /**
   * Takes the completions that there are.
   *
   * @param callback Gets the operation's data, its result (a negative error
   * number when it failed) and the completion's flags.
   * @returns How many there were.
   */
  complete(callback: (data: number, result: number, flags: number) => void): number {
    const cq = this.#cq;
    const tail = Atomics.load(cq, this.#cqTail);
    let head = cq[this.#cqHead];
    let count = 0;
    while (head !== tail) {
      const at = this.#cqes + (head & this.#cqMask) * CQE_WORDS;
      const data = cq[at], result = cq[at + 2] | 0, flags = cq[at + 3];
      head = (head + 1) >>> 0;
      // The entry is the kernel's again before the callback, which may submit.
      Atomics.store(cq, this.#cqHead, head | 0);
      count++;
      callback(data, result, flags);
    }
    return count;
  }

  /** Ends the instance; operations in flight are cancelled by the kernel. */
  [Symbol.dispose](): void {
    for (const ring of this.#rings) ring[Symbol.dispose]();
    this.#fd.close();
  }
}
