import { drainEventfd, type UnixConnection } from "../linux/mod.ts";
import { hasProtocolFeature, type ProtocolFeature } from "../vhost_user/mod.ts";
import { FrontendConnection, type InflightBuffer } from "./connection.ts";
import type { ChannelOptions } from "./control_channel.ts";
import { DriverConfig } from "./driver_config.ts";
import { type AnyDriverQueue, createDriverQueue } from "./driver_queues.ts";
import { FrontendError } from "./frontend_error.ts";
import { negotiate, type Negotiated, type NegotiationOptions } from "./negotiation.ts";
import { type RequestOptions, RequestQueue, type RequestResult } from "./request_queue.ts";
import { SharedMemory, type SharedRegion } from "./shared_memory.ts";
import { DEFAULT_TIMEOUT_MS } from "./wait.ts";

/** What SET_STATUS says, as QEMU does: virtio 1.3, 2.1. */
const STATUS_FEATURES_OK = 8;
const STATUS_DRIVER_OK = 0xf;

/** Default memory of a driver. Only pages that are used cost memory. */
const DEFAULT_MEMORY_BYTES = 64 * 2 ** 20;

/** Where a back-end is: the path of its socket, or a connection to it. */
export type DriverTarget = string | UnixConnection;

/** How a {@linkcode VirtioDriver} is set up. */
export interface VirtioDriverOptions extends NegotiationOptions, ChannelOptions {
  /**
   * How many virtqueues, of 256 descriptors; or the size of each.
   *
   * @default {1}
   */
  queues?: number | readonly number[];
  /**
   * The memory of rings and buffers. It stays the caller's.
   *
   * @default {one region of 64 MiB, the driver's own}
   */
  memory?: SharedMemory;
  /**
   * How many parts an indirect chain has at the most.
   *
   * @default {32}
   */
  indirectParts?: number;
}

/** How to go on with another connection. */
export interface ReconnectOptions {
  /**
   * Where to connect.
   *
   * @default {the path that the driver was started with}
   */
  target?: DriverTarget;
  /**
   * How long to retry while no process listens, in milliseconds.
   *
   * @default {the driver's timeout}
   */
  connectMs?: number;
  /**
   * Acknowledge the features of before even if they are not offered any more,
   * as QEMU does.
   *
   * @default {false}
   */
  asBefore?: boolean;
}

/**
 * A virtio driver with its front-end, for devices whose author wants to see
 * them work without QEMU. It negotiates, gives memory and starts virtqueues in
 * the order in which QEMU does.
 *
 * Requests ({@linkcode VirtioDriver.request}) copy in and out; a load
 * generator drives {@linkcode VirtioDriver.queues} itself instead, on this
 * thread or another, and must not mix the two on one queue.
 *
 * @example
 * ```ts ignore
 * import { VirtioDriver } from "@vhostd/vhostd/frontend";
 *
 * await using driver = await VirtioDriver.start("/tmp/rng.sock");
 * const { written, data } = await driver.request(0, [], [16]);
 * console.log(data[0].subarray(0, written));
 * ```
 */
export class VirtioDriver implements AsyncDisposable {
  /** The memory of rings and buffers. */
  readonly memory: SharedMemory;
  /** The virtqueues, by index. */
  readonly queues: readonly AnyDriverQueue[];
  /** The device's config space. */
  readonly config: DriverConfig;
  readonly #options: VirtioDriverOptions;
  readonly #path: string | undefined;
  readonly #ownsMemory: boolean;
  readonly #requests: readonly RequestQueue[];
  #connection: FrontendConnection;
  #negotiated: Negotiated;
  #given: readonly SharedRegion[] = [];
  #inflight: InflightBuffer | undefined;
  #bases: readonly number[];
  #running = false;

  private constructor(
    target: DriverTarget,
    options: VirtioDriverOptions,
    connection: FrontendConnection,
    negotiated: Negotiated,
  ) {
    const { queues = 1, indirectParts = 32, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const sizes = typeof queues === "number" ? new Array<number>(queues).fill(256) : queues;
    this.#path = typeof target === "string" ? target : undefined;
    this.#options = options;
    this.#connection = connection;
    this.#negotiated = negotiated;
    this.#ownsMemory = options.memory === undefined;
    this.config = new DriverConfig(() => this.#connection);
    using made = new DisposableStack();
    this.memory = options.memory ?? made.use(new SharedMemory(DEFAULT_MEMORY_BYTES));
    this.queues = sizes.map((size) =>
      made.use(createDriverQueue(this.memory, {
        size,
        packed: negotiated.packed,
        inOrder: negotiated.inOrder,
        eventIndex: negotiated.eventIndex,
        indirectParts: negotiated.indirect ? indirectParts : 0,
      }))
    );
    this.#bases = this.queues.map((queue) => queue.resumeBase);
    this.#requests = this.queues.map((queue, index) =>
      new RequestQueue(queue, this.memory, { index, timeoutMs })
    );
    made.move();
  }

  /**
   * Connects and negotiates; nothing is started. A connection that is given
   * becomes the driver's.
   */
  static async connect(
    target: DriverTarget,
    options: VirtioDriverOptions = {},
  ): Promise<VirtioDriver> {
    await using made = new AsyncDisposableStack();
    const connection = made.use(await open(target, options));
    const negotiated = await negotiate(connection, options);
    made.use(negotiated.backChannel);
    const driver = new VirtioDriver(target, options, connection, negotiated);
    made.adopt(driver, (driver) => driver.#release());
    // As QEMU does, but not when it reconnects: it keeps a copy of what it reads now
    if (driver.#has("CONFIG")) await driver.config.read(0, 1);
    await driver.#giveEventfds();
    made.move();
    return driver;
  }

  /** Connects, negotiates and starts. */
  static async start(
    target: DriverTarget,
    options: VirtioDriverOptions = {},
  ): Promise<VirtioDriver> {
    const driver = await VirtioDriver.connect(target, options);
    try {
      await driver.restart();
      return driver;
    } catch (error) {
      await driver.close();
      throw error;
    }
  }

  /** The control connection of the moment, for any request beside the driver's own. */
  get connection(): FrontendConnection {
    return this.#connection;
  }

  /** What was agreed upon, with the back-end's own channel. */
  get negotiated(): Readonly<Negotiated> {
    return this.#negotiated;
  }

  /** The feature bits that were acknowledged. */
  get features(): bigint {
    return this.#negotiated.features;
  }

  /** The virtqueues are started. */
  get running(): boolean {
    return this.#running;
  }

  /** The buffer that records requests in flight, once it was asked for; the driver's. */
  get inflight(): Readonly<InflightBuffer> | undefined {
    return this.#inflight;
  }

  /**
   * Makes a request and waits for it.
   *
   * @param queue Index of the virtqueue
   * @param readable What the device reads; copied
   * @param writableBytes The size of each part that the device writes
   * @throws {FrontendError} With reason "timeout", "closed" or "device"
   */
  request(
    queue: number,
    readable: readonly Uint8Array[],
    writableBytes: readonly number[],
    options: RequestOptions = {},
  ): Promise<RequestResult> {
    if (!this.#running) {
      return Promise.reject(
        new FrontendError("closed", "Expected a started driver, got a stopped one"),
      );
    }
    return this.#requests[queue].request(readable, writableBytes, options);
  }

  async #giveEventfds(): Promise<void> {
    for (const [index, { handle }] of this.queues.entries()) {
      await this.#connection.setVringCall(index, handle.callFd);
      await this.#connection.setVringErr(index, handle.errFd);
    }
  }

  #has(name: ProtocolFeature): boolean {
    return hasProtocolFeature(this.#negotiated.protocolFeatures, name);
  }

  /**
   * Starts the virtqueues, after {@linkcode VirtioDriver.connect},
   * {@linkcode VirtioDriver.stop} or {@linkcode VirtioDriver.reset}.
   *
   * @param bases Where each resumes; by default where it stopped
   */
  async restart(bases: readonly number[] = this.#bases): Promise<void> {
    const connection = this.#connection;
    await connection.setFeatures(this.#negotiated.features);
    if (this.#has("STATUS")) await connection.setStatus(STATUS_FEATURES_OK);
    if (this.#has("INFLIGHT_SHMFD")) await this.#giveInflight();
    await this.giveMemory();
    for (const [index, queue] of this.queues.entries()) {
      await this.#place(index, queue, bases[index]);
    }
    for (const index of this.queues.keys()) await connection.setVringEnable(index, true);
    if (this.#has("STATUS")) await connection.setStatus(STATUS_DRIVER_OK);
    this.#running = true;
    // As QEMU does: nothing else announces the buffers that are already in the rings.
    for (const queue of this.queues) queue.kick();
    for (const requests of this.#requests) requests.resume();
  }

  async #place(index: number, queue: AnyDriverQueue, base: number): Promise<void> {
    const { size, descriptorGpa, availableGpa, usedGpa, kickFd, callFd } = queue.handle;
    const address = (gpa: number) => BigInt(this.memory.userAddress(gpa));
    const connection = this.#connection;
    await connection.setVringNum(index, size);
    await connection.setVringBase(index, base);
    await connection.setVringAddr({
      index,
      flags: 0,
      descriptor: address(descriptorGpa),
      used: address(usedGpa),
      available: address(availableGpa),
      log: 0n,
    });
    await connection.setVringKick(index, kickFd);
    await connection.setVringCall(index, callFd);
  }

  async #giveInflight(): Promise<void> {
    const size = Math.max(...this.queues.map((queue) => queue.size));
    this.#inflight ??= await this.#connection.getInflightFd(this.queues.length, size);
    await this.#connection.setInflightFd(this.#inflight);
  }

  /**
   * Tells the back-end what the memory consists of now, as after a region was
   * added or removed: only the difference with memory slots, else all of it.
   */
  async giveMemory(): Promise<void> {
    const { regions } = this.memory;
    if (this.#has("CONFIGURE_MEM_SLOTS")) {
      for (const region of this.#given) {
        if (!regions.includes(region)) await this.#connection.remMemReg(region);
      }
      for (const region of regions) {
        if (!this.#given.includes(region)) await this.#connection.addMemReg(region);
      }
    } else {
      await this.#connection.setMemTable(this.memory);
    }
    this.#given = regions;
  }

  /**
   * Stops every virtqueue. The device completes what it has taken before it
   * answers; what it has not taken stays in the ring until a restart, so
   * requests may wait meanwhile.
   *
   * @returns Where each stopped
   */
  async stop(): Promise<number[]> {
    for (const requests of this.#requests) requests.flush();
    this.#running = false;
    for (const index of this.queues.keys()) await this.#connection.setVringEnable(index, false);
    const bases: number[] = [];
    for (const index of this.queues.keys()) bases.push(await this.#connection.getVringBase(index));
    if (this.#has("STATUS")) await this.#connection.setStatus(0);
    for (const requests of this.#requests) requests.pause();
    return this.#bases = bases;
  }

  /**
   * Stops the device and resets it (RESET_DEVICE, or status 0). Requests that
   * are not complete fail; rings start over. {@linkcode VirtioDriver.restart}
   * starts it again.
   */
  async reset(): Promise<void> {
    if (this.#running) await this.stop();
    if (this.#has("RESET_DEVICE")) await this.#connection.resetDevice();
    // As QEMU does: a device that was reset gets another record.
    this.#dropInflight();
    for (const requests of this.#requests) requests.abandon("The device was reset");
    for (const queue of this.queues) {
      // That it broke before is no news to later requests.
      drainEventfd(queue.handle.errFd);
      queue.reset();
    }
    this.#bases = this.queues.map((queue) => queue.resumeBase);
  }

  /** Ends the connection as a front-end that dies; requests in flight stay so. */
  async disconnect(): Promise<void> {
    for (const requests of this.#requests) requests.flush();
    this.#running = false;
    await this.#negotiated.backChannel?.close();
    await this.#connection.close();
    for (const requests of this.#requests) requests.pause();
    this.#given = [];
  }

  /**
   * Connects again, negotiates the same and starts. Requests that the back-end
   * left in flight are done again: by the back-end if it records them
   * (INFLIGHT_SHMFD), else the driver makes them available again, in their
   * order.
   *
   * @throws {FrontendError} With reason "refused", if the device does not
   * offer any more what was acknowledged
   */
  async reconnect(options: ReconnectOptions = {}): Promise<void> {
    const { target = this.#path, connectMs = this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS } =
      options;
    if (target === undefined) {
      throw new TypeError("Expected a target for a driver that was started with a connection");
    }
    const { features } = this.#negotiated;
    await this.disconnect();
    this.#connection = await open(target, { ...this.#options, connectMs });
    this.#negotiated = await negotiate(this.#connection, { ...this.#options, features });
    if (options.asBefore) this.#negotiated = { ...this.#negotiated, features };
    if (this.#negotiated.features !== features) {
      throw new FrontendError(
        "refused",
        `Expected features 0x${features.toString(16)} again, got 0x${
          this.#negotiated.features.toString(16)
        }`,
      );
    }
    await this.#giveEventfds();
    // A back-end that replies again has left the rings; take its last completions.
    for (const requests of this.#requests) requests.pause();
    if (!this.#has("INFLIGHT_SHMFD")) { for (const queue of this.queues) queue.requeue(); }
    await this.restart(this.queues.map((queue) => queue.resumeBase));
  }

  /**
   * Stops the device if it answers, ends the connection and gives everything
   * back. Requests that are not complete fail.
   */
  async close(): Promise<void> {
    if (this.#running) await this.stop().catch(() => {});
    this.#running = false;
    await this.#negotiated.backChannel?.close();
    await this.#connection.close();
    this.#release();
  }

  #dropInflight(): void {
    this.#inflight?.fd.close();
    this.#inflight = undefined;
  }

  #release(): void {
    for (const requests of this.#requests) requests.abandon("The driver was closed");
    for (const queue of this.queues) queue[Symbol.dispose]();
    this.#dropInflight();
    if (this.#ownsMemory) this.memory[Symbol.dispose]();
  }

  /** Stops and closes. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function open(target: DriverTarget, options: ChannelOptions): Promise<FrontendConnection> {
  return typeof target === "string"
    ? await FrontendConnection.connect(target, options)
    : new FrontendConnection(target, options);
}
