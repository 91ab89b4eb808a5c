/** What the parts of a benchmark have in common. */
import { SharedMemory } from "../../src/frontend/mod.ts";
import { blkRequestsBytes } from "./blk_requests.ts";
import { MAX_DEPTH, MAX_QUEUES, OPERATIONS, type StoreName } from "./cells.ts";
import { Image } from "./image.ts";
import { Backend } from "../lib/backend.ts";
import type { Side } from "./sides.ts";
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

export class Bench implements Disposable {
  readonly threads: LoadThreads;
  /** The memory that every back-end shares with us, one after the other. */
  readonly memory: SharedMemory;
  /** Guest physical addresses of the requests' memory, by queue. */
  readonly gpas: readonly number[];
  readonly #scratch: Scratch;
  readonly #directory: string;
  readonly #images = new Map<StoreName, Promise<Image>>();
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
    const file = (await this.image(store))?.path;
    return this.start((socketPath) =>
      side.command({ socketPath, store, file, bytes: STORE_BYTES, queues })
    );
  }

  /** The file of a store, made when it is wanted first; `undefined` for none. */
  image(store: StoreName): Promise<Image> | undefined {
    if (store === "null") return undefined;
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

  [Symbol.dispose](): void {
    this.threads[Symbol.dispose]();
    this.#scratch[Symbol.dispose]();
  }
}
