/** A device with our driver: each may end and come back. */
import { VirtioDriver, type VirtioDriverOptions } from "../../src/frontend/mod.ts";
import { withTimeout } from "../lib/process.ts";
import type { Random } from "../lib/random.ts";
import { type Actor, sleep, Tally, type World } from "./actor.ts";
import { LastingBackend } from "./backend.ts";

/** How long a request may take, whatever happens meanwhile. */
export const REQUEST_TIMEOUT_MS = 30_000;

/** What may happen to a device and its driver under load. */
export const DISTURBANCES = ["kill -9", "SIGTERM", "reconnect", "rings stopped"] as const;

export type Disturbance = typeof DISTURBANCES[number];

/** A back-end and its driver, under a load. */
export abstract class ServedActor implements Actor {
  readonly tally: Tally;
  readonly world: World;
  readonly random: Random;
  readonly backend: LastingBackend;
  driver!: VirtioDriver;
  readonly #driverOptions: VirtioDriverOptions;
  #gate: PromiseWithResolvers<void> | undefined;

  constructor(
    world: World,
    name: string,
    device: string,
    flags: readonly string[],
    driverOptions: VirtioDriverOptions,
  ) {
    this.tally = new Tally(name);
    this.world = world;
    this.random = world.random(name);
    this.backend = new LastingBackend(world, name, device, flags);
    this.#driverOptions = { timeoutMs: REQUEST_TIMEOUT_MS, ...driverOptions };
  }

  async start(): Promise<void> {
    await this.backend.start();
    this.driver = await VirtioDriver.start(this.backend.socketPath, this.#driverOptions);
  }

  abstract run(): Promise<void>;

  /**
   * Resolves when requests may be made: they are not while the driver has no device. Whoever makes
   * one does so at once.
   */
  async ready(): Promise<void> {
    while (this.#gate !== undefined) await this.#gate.promise;
  }

  /** Does something to the two; those requests that are in flight stay so. */
  async disturb(kind: Disturbance): Promise<void> {
    this.world.fault(this.tally, kind);
    const begun = performance.now();
    this.#gate = Promise.withResolvers();
    await withTimeout(
      this.#disturb(kind),
      2 * REQUEST_TIMEOUT_MS,
      () => `${this.backend.name} hangs after: ${kind}`,
    );
    this.#gate.resolve();
    this.#gate = undefined;
    if (kind === "kill -9") this.tally.pausesMs.push(performance.now() - begun);
  }

  async #disturb(kind: Disturbance): Promise<void> {
    const { backend, driver } = this;
    switch (kind) {
      case "kill -9":
      case "SIGTERM":
        await backend.end(kind === "kill -9" ? "SIGKILL" : "SIGTERM");
        await backend.start();
        return await driver.reconnect();
      case "reconnect":
        return await driver.reconnect();
      case "rings stopped":
        await driver.stop();
        return await driver.restart();
    }
  }

  /** Does one of some things to the two now and then, until it is over. */
  async disturbOften(
    leastMs: number,
    mostMs: number,
    disturb = () => this.disturb(this.random.pick(DISTURBANCES)),
  ): Promise<void> {
    for (;;) {
      await sleep(this.random.between(leastMs, mostMs), this.world.over);
      if (this.world.over.aborted) return;
      await disturb();
    }
  }

  async end(): Promise<void> {
    await this.driver.close();
    await this.backend.end("SIGTERM");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The back-end first: it may be what hangs.
    await this.backend[Symbol.asyncDispose]();
    await this.driver?.close();
  }
}

/** Buffers stay with the device until it has something to say. */
const FOR_EVER_MS = 2 ** 31 - 1;

/** A device that writes to buffers which wait for it in queue 0, and its driver. */
export abstract class ReceivingActor extends ServedActor {
  #isEnding = false;

  constructor(
    world: World,
    name: string,
    flags: readonly string[],
    readonly buffers: { count: number; bytes: number },
    driverOptions: VirtioDriverOptions,
  ) {
    super(world, name, name, flags, { timeoutMs: FOR_EVER_MS, ...driverOptions });
  }

  /** Takes what the device wrote to a buffer, in the order of its writing. */
  protected abstract take(bytes: Uint8Array<ArrayBuffer>): void;

  /** Takes what comes while there is other work, and ends the device then. */
  protected async receiveDuring(...work: Promise<unknown>[]): Promise<void> {
    const lanes = Array.from({ length: this.buffers.count }, () => this.#receive());
    await Promise.race([...lanes, ...work, this.backend.failed]);
    this.#isEnding = true;
    await this.end();
    await Promise.all(lanes);
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        await this.ready();
        const { written, data: [data] } = await this.driver.request(0, [], [this.buffers.bytes]);
        this.tally.requests++;
        this.take(data.subarray(0, written));
      }
    } catch (error) {
      if (!this.#isEnding) throw error;
    }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true;
    await super[Symbol.asyncDispose]();
  }
}
