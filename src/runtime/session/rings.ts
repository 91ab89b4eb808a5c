import { bufferAt } from "../../linux/mod.ts";
import { Signaller } from "../../linux/wait/signaller.ts";
import type { VringAddress } from "../../vhost_user/mod.ts";
import { deviceStatus } from "../../virtio/mod.ts";
import { initialBase, ringBytes } from "../../virtqueue/mod.ts";
import type { Ring } from "../ring.ts";
import type { SessionConfig } from "./config.ts";
import { RequestError } from "./request_handlers.ts";
import { SharingCheck } from "./sharing_check.ts";
import type { SessionState } from "./state.ts";

/** Starts and stops the rings of a connection. */
export class SessionRings {
  readonly #state: SessionState;
  readonly #config: SessionConfig;
  readonly #sharing: SharingCheck;

  constructor(state: SessionState, config: SessionConfig) {
    this.#state = state;
    this.#config = config;
    this.#sharing = new SharingCheck(state.host);
  }

  get #running(): readonly Ring[] {
    return this.#state.rings.filter((ring) => ring.running);
  }

  /** Where the parts of a ring are in the span. */
  locate(
    ring: Ring,
    address: VringAddress,
  ): { descriptorIndex: number; availableIndex: number; usedIndex: number } {
    const { host: { memory: { regions } }, isPacked } = this.#state;
    const bytes = ringBytes(ring.size, isPacked);
    const find = (what: string, user: bigint, length: number) => {
      const index = regions.translateUser(Number(user), length);
      if (index >= 0) return index;
      throw new RequestError(
        `Expected the ${what} of queue ${ring.index} inside guest memory, got 0x${
          user.toString(16)
        }`,
      );
    };
    return {
      descriptorIndex: find("descriptor table", address.descriptor, bytes.descriptor),
      availableIndex: find("available ring", address.available, bytes.available),
      usedIndex: find("used ring", address.used, bytes.used),
    };
  }

  /**
   * Changes something about a ring. One that runs is stopped before and started after; where it
   * cannot start as changed, it continues as it was.
   */
  async reconfigure(
    ring: Ring,
    changes: Partial<Pick<Ring, "address" | "kick" | "started">>,
  ): Promise<void> {
    const { address, kick, started, running } = ring;
    await this.stop([ring]);
    Object.assign(ring, changes);
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      Object.assign(ring, { address, kick, started });
      if (running) await this.#restartOrReport(ring);
      throw error;
    }
  }

  /** Stops the rings that run and starts them again; also those that now can start. */
  async restart(): Promise<void> {
    for (const ring of this.#running) {
      await this.stop([ring]);
      await this.#restartOrReport(ring);
    }
    await this.startWaiting();
  }

  /**
   * Changes memory that rings may be using: they are stopped before, and resume after where they
   * were.
   */
  async changeMemory(change: () => void): Promise<void> {
    const running = this.#running;
    await this.stop(running);
    try {
      change();
    } finally {
      await this.tellMemory();
      for (const ring of running) await this.#restartOrReport(ring);
    }
    await this.startWaiting();
  }

  /** Tells all engines the regions of guest memory. */
  async tellMemory(): Promise<void> {
    const { host } = this.#state;
    await host.tell({ kind: "memory", regions: host.memory.regions.regions });
  }

  /** Starts rings that were started and could not run, where they now can. */
  async startWaiting(): Promise<void> {
    for (const ring of this.#state.rings.filter(({ started, running }) => started && !running)) {
      // Why it cannot yet was recorded when it stopped.
      await this.#startIfReady(ring).catch(() => {});
    }
  }

  /** Starts a ring that has everything it needs. */
  async #startIfReady(ring: Ring): Promise<void> {
    const { index, address } = ring;
    if (!ring.started || ring.running || address === undefined || ring.size === 0) return;
    const { host: { record }, inflight, isMisled, isPacked } = this.#state;
    if (isMisled) throw new RequestError("Expected features that were not refused");
    const place = this.locate(ring, address);
    this.#sharing.starting(ring, place.descriptorIndex);
    const area = inflight?.place(index, ring.size, isPacked) ?? null;
    const { engine } = ring;
    const hadFailed = engine.failure !== undefined;
    const { resumed, resubmitted } = await engine.call({
      kind: "start",
      queue: index,
      ring: {
        ...place,
        size: ring.size,
        base: ring.base ?? null,
        packed: isPacked,
        eventIndex: this.#state.has("EVENT_IDX"),
        indirect: this.#state.has("INDIRECT_DESC"),
        inOrder: this.#state.has("IN_ORDER"),
      },
      inflight: area,
      kick: ring.kick?.number ?? -1,
      call: ring.call?.number ?? -1,
      err: ring.err?.number ?? -1,
      enabled: ring.enabled,
    }).catch(async (error) => {
      if (engine.failure !== undefined && !hadFailed) {
        this.#abandon(ring, engine.failure);
        await this.#withdrawMemory();
      }
      throw error;
    });
    ring.running = true;
    ring.broken = false;
    ring.starts++;
    ring.tracked = area !== null;
    ring.resumed = resumed;
    ring.resubmitted += resubmitted;
    record.ringStarted(index);
    if (!this.#state.hasProtocol("STATUS")) {
      const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = deviceStatus;
      record.status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, "inferred");
    }
    const first = initialBase(isPacked);
    this.#config.ringStarted(ring.resumed || (ring.base ?? first) !== first);
  }

  /** Starts a ring again; where it cannot start, its memory being gone, that is recorded. */
  async #restartOrReport(ring: Ring): Promise<void> {
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      const { record } = this.#state.host;
      record.broken(ring.index, "ring-address", null, (error as Error).message);
    }
  }

  /**
   * Stops rings, once everything in flight is completed or has been given up. Nothing of the device
   * can touch guest memory for them afterwards.
   */
  async stop(rings: readonly Ring[]): Promise<void> {
    const isLate = await Promise.all(rings.map((ring) => this.#halt(ring)));
    if (isLate.includes(true)) await this.#withdrawMemory();
  }

  /** Stops a ring; returns whether its device may still access its chains. */
  async #halt(ring: Ring): Promise<boolean> {
    if (!ring.running) return false;
    const { engine } = ring;
    const { base, isLate } = await engine.stop(ring.index);
    ring.base = base ?? this.#usedIndex(ring);
    ring.running = false;
    if (!isLate) return false;
    // A reset starts it again.
    ring.started = false;
    if (engine.failure !== undefined) this.#abandon(ring, engine.failure);
    return true;
  }

  /** Where a ring resumes if its thread does not tell. */
  #usedIndex(ring: Ring): number | undefined {
    if (ring.address === undefined || this.#state.isPacked) return ring.base;
    const { regions, handle } = this.#state.host.memory;
    const index = regions.translateUser(Number(ring.address.used), 4);
    return index < 0
      ? ring.base
      : new DataView(bufferAt(handle.base + index, 4)).getUint16(2, true);
  }

  /** Leaves a ring to a thread that does not answer: its descriptors stay open, as they may be used. */
  #abandon(ring: Ring, failure: Error): void {
    this.#state.host.record.broken(ring.index, "device", null, failure.message);
    if (ring.err !== undefined) {
      using signaller = new Signaller();
      signaller.signal(ring.err.number);
    }
    ring.kick = ring.call = ring.err = undefined;
  }

  /** Moves guest memory away from abandoned code; running rings are stopped for that. */
  async #withdrawMemory(): Promise<void> {
    const others = this.#running;
    await Promise.all(others.map((ring) => this.#halt(ring)));
    // A failed thread may touch the in-flight records too.
    if (this.#state.host.withdrawMemory()) this.#state.inflight?.move();
    await this.tellMemory();
    for (const ring of others) await this.#restartOrReport(ring);
  }

  /** Enables or disables rings. */
  async enable(rings: readonly Ring[], enabled: boolean): Promise<void> {
    for (const ring of rings) {
      ring.enabled = enabled;
      if (ring.running) await ring.engine.call({ kind: "enable", queue: ring.index, enabled });
    }
  }

  /** Stops all rings and closes their descriptors. */
  async close(): Promise<void> {
    this.#sharing[Symbol.dispose]();
    await this.stop(this.#state.rings);
    for (const ring of this.#state.rings) {
      ring.enabled = false;
      for (const fd of [ring.kick, ring.call, ring.err]) fd?.close();
    }
  }
}
