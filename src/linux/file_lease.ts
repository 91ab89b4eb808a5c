/**
 * Leases: the kernel's promise that nobody else opens a file before we are
 * ready for it.
 *
 * Source: fcntl(2), "Leases".
 *
 * @module
 */

import { libc } from "./libc.ts";

const F_SETLEASE = 1024;
const F_GETLEASE = 1025;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** The leases of this process: the signal does not say which one is meant. */
const leases = new Set<FileLease>();

function onSignal(): void {
  for (const lease of leases) lease.check();
}

/**
 * A write lease on a file. While it is held, no other open file is the same
 * one: somebody who opens it (or truncates it by its path) waits until the
 * holder has given the lease back, or has `EWOULDBLOCK` when it does not want
 * to wait. The kernel waits 45 s for the holder (`/proc/sys/fs/lease-break-time`).
 */
export class FileLease implements Disposable {
  readonly #fd: number;
  readonly #onBreak: () => void;
  #isHeld = false;

  /**
   * Prepares a lease; {@linkcode FileLease.take} takes it.
   *
   * @param fd The file; it stays the caller's, and stays open as long as this.
   * @param onBreak Called when somebody waits for the file: ends what the lease
   * allowed, then the lease is given back.
   */
  constructor(fd: number, onBreak: () => void) {
    this.#fd = fd;
    this.#onBreak = onBreak;
    // The signal would end the process that does not listen to it.
    if (leases.size === 0) Deno.addSignalListener("SIGIO", onSignal);
    leases.add(this);
  }

  /** Whether the lease is ours. */
  get isHeld(): boolean {
    return this.#isHeld;
  }

  /**
   * Takes the lease.
   *
   * @returns Whether it could be had: nobody else may have the file open, it has
   * to be ours, and its file system has to know leases.
   */
  take(): boolean {
    return this.#isHeld ||= libc.fcntl(this.#fd, F_SETLEASE, F_WRLCK) >= 0;
  }

  /**
   * Gives the lease back if somebody waits for it.
   *
   * @internal
   */
  check(): void {
    if (!this.#isHeld || libc.fcntl(this.#fd, F_GETLEASE, 0) === F_WRLCK) return;
    this.#onBreak();
    this.#release();
  }

  #release(): void {
    this.#isHeld = false;
    libc.fcntl(this.#fd, F_SETLEASE, F_UNLCK);
  }

  /** Gives the lease back. */
  [Symbol.dispose](): void {
    if (!leases.delete(this)) return;
    if (this.#isHeld) this.#release();
    if (leases.size === 0) Deno.removeSignalListener("SIGIO", onSignal);
  }
}
