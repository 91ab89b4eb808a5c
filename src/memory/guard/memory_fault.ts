/**
 * Faults in memory whose file another process can make shorter.
 *
 * A thread that touches a mapped page beyond the end of its file gets SIGBUS, which by default ends
 * the process. A memfd can be sealed against it (`memory_file.ts`). For other files there is the
 * guard:
 *
 * - A worker listens for SIGBUS through Deno. Deno's signal handler writes to a pipe and returns;
 *   the instruction is retried and faults again until the worker has mapped zeros in the place of
 *   the missing pages. A fraction of a millisecond later the thread reads zeros.
 * - The worker itself never touches guarded memory, so it never waits for itself.
 * - A SIGBUS that no guarded mapping explains gets its default effect back, and ends the process.
 *
 * System calls do not fault: they fail with EFAULT.
 *
 * Sources: signal-safety(7), sigaction(2), mmap(2); Deno's `Deno.addSignalListener`.
 *
 * @module
 */

import { check } from "../../linux/errors.ts";
import { Guarded, GuardTable, MAX_GUARDED } from "./guard_table.ts";
import { duplicateFd, expectDescriptors, WORKER_DESCRIPTORS } from "../../linux/fd.ts";
import { libc } from "../../linux/libc.ts";
import { inspectMemoryFile } from "../../linux/file/memory_file.ts";

/** signal(7): 7 on x86-64 and aarch64. */
const SIGBUS = 7;
const SIGURG = 23;

/** More than struct sigaction of glibc has on any machine. */
const SIGACTION_BYTES = 256;

/** A mapping to guard. */
export interface GuardedMapping {
  /** Its file; it stays the caller's. */
  fd: number;
  /** Where in the file it begins. */
  fileOffset: number;
  /** The unit in which the file is mapped. */
  pageBytes: number;
}

/** A mapping that is guarded, or will be. */
export interface GuardedPlace extends Disposable {
  /** Guards it from now on: `bytes` bytes at an address, a multiple of its file's pages. */
  begin(address: number, bytes: number): void;
}

/** What the watcher is started with. */
export interface WatcherStart {
  table: SharedArrayBuffer;
}

/** What the watcher says: it is ready, it failed, or pages of a mapping were replaced by zeros. */
export type WatcherMessage =
  | { kind: "ready" }
  | { kind: "failed"; message: string }
  | { kind: "lost"; id: number; offset: number; bytes: number };

/** Guards mappings of this process; one for each thread that needs it. */
export class MemoryGuard implements Disposable {
  readonly #table = new GuardTable();
  readonly #worker: Worker;
  readonly #previous: Uint8Array<ArrayBuffer>;
  readonly #onLost = new Map<number, (offset: number, bytes: number) => void>();
  #nextId = 1;

  static #shared: Promise<MemoryGuard> | undefined;
  static #users = 0;
  /**
   * A listener stays when the worker ends: signals of mended faults may still be under way, and
   * without a listener Deno gives SIGBUS its default effect.
   */
  static #listens = false;

  private constructor(worker: Worker, previous: Uint8Array<ArrayBuffer>) {
    this.#worker = worker;
    this.#previous = previous;
  }

  /**
   * The guard of this thread, which its first user starts and its last one ends, with
   * {@linkcode MemoryGuard[Symbol.dispose]}.
   *
   * @throws {Error} When it cannot be started.
   */
  static async acquire(): Promise<MemoryGuard> {
    MemoryGuard.#users++;
    try {
      return await (MemoryGuard.#shared ??= MemoryGuard.#start());
    } catch (error) {
      MemoryGuard.#shared = undefined;
      MemoryGuard.#users--;
      throw error;
    }
  }

  static async #start(): Promise<MemoryGuard> {
    expectUnchanged();
    expectDescriptors(WORKER_DESCRIPTORS);
    const previous = getAction(SIGBUS);
    if (!MemoryGuard.#listens) {
      MemoryGuard.#listens = true;
      listenForBusErrors(() => {});
    }
    const worker = new Worker(new URL("./memory_fault_watcher.ts", import.meta.url), {
      type: "module",
      name: "vhostd-memory-guard",
    });
    const guard = new MemoryGuard(worker, previous);
    const ready = Promise.withResolvers<void>();
    worker.onmessage = ({ data }: MessageEvent<WatcherMessage>) => {
      if (data.kind === "ready") ready.resolve();
      else if (data.kind === "failed") ready.reject(new Error(data.message));
      else guard.#onLost.get(data.id)?.(data.offset, data.bytes);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      restoreBusErrors(); // without the worker a fault would be retried for ever
      ready.reject(new Error(`The memory guard ended: ${event.message}`));
    };
    const start: WatcherStart = { table: guard.#table.memory };
    worker.postMessage(start);
    try {
      await ready.promise;
    } catch (error) {
      guard.#end();
      throw error;
    }
    return guard;
  }

  /**
   * Prepares to guard a mapping that is still to be made, and holds a
   * descriptor of its file. It is guarded from {@linkcode GuardedPlace.begin} until
   * the place is disposed of, which has to come before the mapping ends.
   *
   * @param onLost Called soon after a part of it became zeros
   * @throws {LinuxError} When there is no room for one more descriptor.
   * @throws {RangeError} When {@linkcode MAX_GUARDED} mappings are guarded.
   */
  prepare(
    mapping: GuardedMapping,
    onLost: (offset: number, bytes: number) => void,
  ): GuardedPlace {
    const fd = duplicateFd(mapping.fd);
    const id = this.#nextId++;
    try {
      const entry = this.#table.locked((entries) => {
        const free = entries.find((entry) => entry[Guarded.ID] === 0);
        if (free === undefined) {
          throw new RangeError(`Expected at most ${MAX_GUARDED} mappings to guard, got one more`);
        }
        free[Guarded.BYTES] = 0;
        free[Guarded.FD] = fd.number;
        free[Guarded.FILE_OFFSET] = mapping.fileOffset;
        free[Guarded.PAGE_BYTES] = mapping.pageBytes;
        free[Guarded.CHANGED_AT] = inspectMemoryFile(fd.number).changedAt;
        free[Guarded.ID] = id;
        return free;
      });
      this.#onLost.set(id, onLost);
      return {
        begin: (address, bytes) => {
          this.#table.locked(() => {
            entry[Guarded.ADDRESS] = address;
            entry[Guarded.BYTES] = bytes;
          });
        },
        [Symbol.dispose]: () => {
          if (!this.#onLost.delete(id)) return;
          this.#table.locked(() => entry[Guarded.ID] = 0);
          fd.close();
        },
      };
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  #end(): void {
    this.#worker.terminate();
    setAction(SIGBUS, this.#previous);
  }

  /** Ends one use of the guard; nothing of that user may be guarded any more. */
  [Symbol.dispose](): void {
    if (--MemoryGuard.#users > 0) return;
    MemoryGuard.#shared = undefined;
    this.#end();
  }
}

/** Where the worker's modules are. */
const FOLDERS = ["./", "../../linux/", "../../linux/file/", "../../linux/wait/"]
  .map((folder) => new URL(folder, import.meta.url));

/**
 * Checks that the worker's modules are those that run here: they are read when the worker starts,
 * long after everything else. Starting it early would cost every device 17 MB.
 *
 * @throws {Error} When one of its modules was changed meanwhile.
 */
function expectUnchanged(): void {
  for (const folder of FOLDERS) if (folder.protocol === "file:") expectUnchangedIn(folder);
}

function expectUnchangedIn(folder: URL): void {
  for (const { name } of Deno.readDirSync(folder)) {
    const { ctime, mtime } = Deno.statSync(new URL(name, folder));
    // Deno gives whole seconds.
    if (Number(ctime ?? mtime) > performance.timeOrigin + 1000) {
      throw new Error(
        `Expected the ${name} that this process was started with, got one that was changed meanwhile; ` +
          "restart vhostd, or give guest memory as a sealed memfd",
      );
    }
  }
}

function getAction(signal: number): Uint8Array<ArrayBuffer> {
  const action = new Uint8Array(SIGACTION_BYTES);
  check(libc.sigaction(signal, null, action), "sigaction");
  return action;
}

function setAction(signal: number, action: Uint8Array<ArrayBuffer>): void {
  check(libc.sigaction(signal, action, null), "sigaction");
}

/** Gives SIGBUS its default effect. */
export function restoreBusErrors(): void {
  setAction(SIGBUS, new Uint8Array(SIGACTION_BYTES));
}

/**
 * Makes SIGBUS call a listener, and do nothing else.
 *
 * Deno's handler first calls the one that it replaced. That of Rust's runtime would end the process,
 * so it is removed before. Deno installs its handler only once in the life of a process: later it is
 * copied from another signal, as it is the same for all.
 */
export function listenForBusErrors(listener: () => void): void {
  const none = () => {};
  Deno.addSignalListener("SIGURG", none);
  const denos = getAction(SIGURG);
  Deno.removeSignalListener("SIGURG", none);
  if (!sameHandler(getAction(SIGBUS), denos)) restoreBusErrors();
  Deno.addSignalListener("SIGBUS", listener);
  if (!sameHandler(getAction(SIGBUS), denos)) setAction(SIGBUS, denos);
}

/** struct sigaction begins with the handler's address. */
function sameHandler(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  return new DataView(a.buffer).getBigUint64(0, true) ===
    new DataView(b.buffer).getBigUint64(0, true);
}
