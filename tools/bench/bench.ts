/** What the parts of a benchmark have in common. */
import { SharedMemory } from "../../src/frontend/mod.ts";
import { blkRequestsBytes } from "./blk_requests.ts";
import { isElsewhere, MAX_DEPTH, MAX_QUEUES, OPERATIONS, type StoreName } from "./cells.ts";
import { Image } from "./image.ts";
import { Backend } from "../lib/backend.ts";
import { fileDisk, nbdDisk, nullDisk, overlayDisk, rbdDisk } from "./disks.ts";
import type { Disk, Side } from "./sides.ts";
import { LoadThreads } from "./load_threads.ts";
import type { Options } from "./options.ts";
import type { Scratch } from "../lib/scratch.ts";
import type { SystemCallCounter } from "./system_calls.ts";

/** Memory for the requests of a queue. */
const QUEUE_BYTES = blkRequestsBytes(MAX_DEPTH, OPERATIONS.seqread128k.bytes);
const MEMORY_BYTES = MAX_QUEUES * QUEUE_BYTES + 8 * 2 ** 20;

/** Below 2^31, so that addresses are small integers to V8. */
const GUEST_ADDRESS = 2 ** 20;

export const STORE_BYTES = 256 * 2 ** 20;

export class Bench implements AsyncDisposable {
  readonly threads: LoadThreads;
  /** The memory that every back-end shares with us, one after the other. */
  readonly memory: SharedMemory;
  /** Guest physical addresses of the requests' memory, by queue. */
  readonly gpas: readonly number[];
  readonly #scratch: Scratch;
  readonly #directory: string;
  readonly #images = new Map<StoreName, Promise<Image>>();
  readonly #disks = new Map<StoreName, Promise<Disk>>();
  /** The servers of disks. */
  readonly #servers = new AsyncDisposableStack();
  #sockets = 0;

  constructor(
    readonly options: Options,
    scratch: Scratch,
    readonly counter: SystemCallCounter | undefined,
  ) {
    this.#scratch = scratch;
    this.#directory = scratch.directory();
    this.memory = new SharedMemory([{ bytes: MEMORY_BYTES, guestAddress: GUEST_ADDRESS }]);
    this.gpas = Array.from({ length: MAX_QUEUES }, () => this.memory.alloc(QUEUE_BYTES, 4096));
    this.threads = new LoadThreads();
  }

  /** Starts a back-end on a new socket. */
  start(command: (socketPath: string) => [string, ...string[]]): Backend {
    const socketPath = `${this.#directory}/${this.#sockets++}.sock`;
    return new Backend(command(socketPath), { socketPath });
  }

  /** Starts a side that serves a store. */
  async serve(side: Side, store: StoreName = "null", queues = 1): Promise<Backend> {
    const disk = this.#disks.get(store) ?? this.#makeDisk(store);
    this.#disks.set(store, disk);
    const served = await disk;
    return this.start((socketPath) => side.command({ socketPath, disk: served, queues }));
  }

  /** Makes what a store is, or starts its server. */
  async #makeDisk(store: StoreName): Promise<Disk> {
    switch (store) {
      case "null":
        return nullDisk(STORE_BYTES);
      case "nbd":
        return await nbdDisk(`${this.#directory}/nbd.sock`, STORE_BYTES, this.#servers);
      case "rbd":
        return await rbdDisk(STORE_BYTES, this.#servers);
      case "overlay":
      case "overlay-base": {
        const directory = this.#scratch.directory(this.options.diskDir);
        return await overlayDisk(directory, STORE_BYTES, store === "overlay");
      }
      default:
        return fileDisk((await this.image(store)!).path, store === "disk-direct");
    }
  }

  /** The file of a store, made when it is wanted first; `undefined` for none. */
  image(store: StoreName): Promise<Image> | undefined {
    if (store === "null" || isElsewhere(store)) return undefined;
    const image = this.#images.get(store) ?? this.#makeImage(store);
    this.#images.set(store, image);
    return image;
  }

  #makeImage(store: StoreName): Promise<Image> {
    const { tmpfsDir, diskDir } = this.options;
    const parent = store === "tmpfs" ? tmpfsDir : diskDir;
    return Image.create(`${this.#scratch.directory(parent)}/${store}.img`, STORE_BYTES);
  }

  /** Reads all files, after everything that wrote. */
  async verifyImages(): Promise<void> {
    for (const image of this.#images.values()) await (await image).verify();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#servers.disposeAsync();
    this.threads[Symbol.dispose]();
    this.#scratch[Symbol.dispose]();
  }
}
