/** A device of ours with a driver of ours, of which each may go and come back. */
import { VirtioDriver, type VirtioDriverOptions } from "../../src/frontend/mod.ts";
import { withTimeout } from "../lib/process.ts";
import type { World } from "./actor.ts";
import { LastingBackend } from "./backend.ts";
import type { Tally } from "./tally.ts";

/** How long a request may take, whatever happens meanwhile. */
export const REQUEST_TIMEOUT_MS = 30_000;

/** What may happen to a device and its driver under load. */
export const DISTURBANCES = ["kill -9", "SIGTERM", "reconnect", "rings stopped"] as const;

/** One of these. */
export type Disturbance = typeof DISTURBANCES[number];

/** A back-end and its driver. */
export class Served implements AsyncDisposable {
  readonly backend: LastingBackend;
  readonly driver: VirtioDriver;
  readonly #world: World;
  readonly #tally: Tally;
  #gate: PromiseWithResolvers<void> | undefined;

  private constructor(world: World, tally: Tally, backend: LastingBackend, driver: VirtioDriver) {
    this.#world = world;
    this.#tally = tally;
    this.backend = backend;
    this.driver = driver;
  }

  /** Starts both. */
  static async start(
    world: World,
    tally: Tally,
    device: string,
    flags: readonly string[],
    driverOptions: VirtioDriverOptions,
  ): Promise<Served> {
    await using made = new AsyncDisposableStack();
    const backend = made.use(new LastingBackend(world, tally.name, device, flags));
    await backend.start();
    const driver = await VirtioDriver.start(backend.socketPath, {
      timeoutMs: REQUEST_TIMEOUT_MS,
      ...driverOptions,
    });
    made.move();
    return new Served(world, tally, backend, driver);
  }

  /**
   * Resolves when requests may be made: they are not while the driver has no device. Whoever makes
   * one does so at once.
   */
  async ready(): Promise<void> {
    while (this.#gate !== undefined) await this.#gate.promise;
  }

  /** Does something to the two; those requests that are in flight stay so. */
  async disturb(kind: Disturbance): Promise<void> {
    this.#world.fault(this.#tally, kind);
    const begun = performance.now();
    this.#gate = Promise.withResolvers();
    await withTimeout(
      this.#disturb(kind),
      2 * REQUEST_TIMEOUT_MS,
      () => `${this.backend.name} hangs after: ${kind}`,
    );
    this.#gate.resolve();
    this.#gate = undefined;
    if (kind === "kill -9") this.#tally.pausesMs.push(performance.now() - begun);
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

  /** Ends both in good order. */
  async end(): Promise<void> {
    await this.driver.close();
    await this.backend.end("SIGTERM");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The back-end first: it may be what hangs.
    await this.backend[Symbol.asyncDispose]();
    await this.driver.close();
  }
}
