/** Descriptors of every kind that a front-end can send. */
import {
  createEventfd,
  createMemfd,
  Fd,
  Mapping,
  resizeFile,
  setNonblocking,
  signalEventfd,
  UnixConnection,
  UnixListener,
} from "../../../src/linux/mod.ts";
import { libc } from "../../../src/linux/libc.ts";

/** The size of the memory that rings are put into. */
export const MEMORY_BYTES = 2 ** 20;

const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_WRITE = 8;
const O_CLOEXEC = 0o2000000;
const O_PATH = 0o10000000;

/** The kinds, but for memory that a recording asks for. */
export const descriptorKinds = [
  ...["eventfd", "full eventfd", "pipe to read", "pipe to write", "pipe without a writer"],
  ...["socket", "listening socket", "datagram socket", "epoll", "timerfd", "directory", "path"],
  ...["null", "file", "tmpfs file", "memory", "short memory", "shrinking memory"],
  ...["read-only memory", "write-sealed memory"],
] as const;

export type DescriptorKind = typeof descriptorKinds[number];

/** A descriptor to be sent: of a kind, or memory of a size. */
export type Descriptor = { kind: DescriptorKind } | { memoryBytes: number };

/** Descriptors to send, of every kind; they are made once and sent again and again. */
export class DescriptorPool implements Disposable {
  readonly #made = new DisposableStack();
  readonly #byKind: Record<DescriptorKind, number>;
  readonly #recorded = new Map<number, number>();
  /** The memory that rings are put into, as its front-end sees it. */
  readonly memory: Uint8Array<ArrayBuffer>;

  /** Makes all of them; files go into a directory. */
  constructor(directory: string) {
    const memory = this.#own(createMemfd("fuzz", MEMORY_BYTES));
    const mapping = this.#made.use(new Mapping(memory, MEMORY_BYTES));
    this.memory = new Uint8Array(mapping.buffer);
    const full = this.#own(createEventfd());
    libc.write(full, new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer), 8);
    const [reader, writer] = this.#pipe();
    const [deaf] = this.#pipe(true);
    const pair = UnixConnection.pair();
    for (const end of pair) this.#made.use(end);
    const shrinking = this.#own(createMemfd("fuzz", MEMORY_BYTES));
    libc.fcntl(shrinking, F_ADD_SEALS, F_SEAL_SEAL);
    const writeSealed = this.#own(createMemfd("fuzz", MEMORY_BYTES));
    libc.fcntl(writeSealed, F_ADD_SEALS, F_SEAL_WRITE);
    const open = (path: string, flags: number) =>
      this.#own(new Fd(libc.open(new TextEncoder().encode(`${path}\0`), flags, 0o600)));
    const file = (path: string) => {
      Deno.writeFileSync(path, new Uint8Array(MEMORY_BYTES));
      return open(path, 2);
    };
    const tmpfs = `/dev/shm/${directory.split("/").at(-1)}`;
    this.#byKind = {
      "eventfd": this.#own(createEventfd()),
      "full eventfd": full,
      "pipe to read": reader,
      "pipe to write": writer,
      "pipe without a writer": deaf,
      "socket": pair[0].fd.number,
      "listening socket": this.#made.use(UnixListener.listen(`${directory}/listening`)).fd.number,
      "datagram socket": this.#own(new Fd(libc.socket(1, 2, 0))),
      "epoll": this.#own(new Fd(libc.epoll_create1(0))),
      "timerfd": this.#own(new Fd(libc.timerfd_create(1, 0))),
      "directory": open(directory, 0),
      "path": open(directory, O_PATH),
      "null": open("/dev/null", 2),
      "file": file(`${directory}/file`),
      "tmpfs file": file(tmpfs),
      "memory": memory,
      "short memory": this.#own(createMemfd("fuzz", 4096)),
      "shrinking memory": shrinking,
      "read-only memory": open(`/proc/self/fd/${memory}`, 0),
      "write-sealed memory": writeSealed,
    };
    Deno.removeSync(tmpfs);
  }

  #own(fd: Fd): number {
    return this.#made.use(fd).number;
  }

  /** A pipe; its writing end is closed at once on demand. */
  #pipe(isOneEnded = false): [number, number] {
    const ends = new Int32Array(2);
    libc.pipe2(ends, O_CLOEXEC);
    const writer = new Fd(ends[1]);
    const numbers: [number, number] = [this.#own(new Fd(ends[0])), writer.number];
    if (isOneEnded) writer.close();
    else this.#made.use(writer);
    return numbers;
  }

  /** A descriptor, by its kind or as a recording has it. */
  number(descriptor: Descriptor): number {
    return "kind" in descriptor
      ? this.#byKind[descriptor.kind]
      : this.#recordedMemory(descriptor.memoryBytes);
  }

  /** Memory of the size that a recording has; nothing of it is used. */
  #recordedMemory(bytes: number): number {
    let fd = this.#recorded.get(bytes);
    if (fd === undefined) {
      fd = this.#own(createMemfd("fuzz", bytes));
      this.#recorded.set(bytes, fd);
    }
    return fd;
  }

  /** Sets the size of the memory that shrinks. */
  resize(bytes: number): void {
    resizeFile(this.#byKind["shrinking memory"], bytes);
  }

  /** Signals the eventfd that is every ring's kick: rings that run look for requests. */
  kick(): void {
    signalEventfd(this.#byKind.eventfd);
  }

  /** Makes the eventfds block, as every other holder can at any time. */
  block(): void {
    for (const kind of ["eventfd", "full eventfd"] as const) {
      setNonblocking(this.#byKind[kind], false);
    }
  }

  [Symbol.dispose](): void {
    this.#made[Symbol.dispose]();
  }
}
