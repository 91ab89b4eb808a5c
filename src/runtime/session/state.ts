import { StuckError } from "../../linux/quarantine.ts";
import { hasProtocolFeature, type ProtocolFeature } from "../../vhost_user/mod.ts";
import { hasFeature, type TransportFeature, transportFeatures } from "../../virtio/mod.ts";
import type { DeviceHost } from "../device_host.ts";
import type { Ring } from "../ring.ts";
import type { InflightArea } from "./inflight_area.ts";
import { RequestError } from "./request_handlers.ts";

/** The state that a session's handlers share: the device, its rings, and the negotiated features. */
export class SessionState {
  readonly host: DeviceHost;
  readonly rings: readonly Ring[];
  /** The protocol features that are offered. */
  offeredProtocol = 0n;
  /** The protocol features that were negotiated. */
  protocol = 0n;
  /** The features that were negotiated. */
  features = 0n;
  /** The device status. */
  status = 0;
  /**
   * SET_FEATURES was refused without a reply, as QEMU had not asked for one: it believes that the
   * features are set, so rings do not start.
   */
  isMisled = false;
  /** Where rings record requests in flight. */
  inflight: InflightArea | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** @param host The device that is served. */
  constructor(host: DeviceHost) {
    this.host = host;
    this.rings = host.queues;
  }

  /** Whether a transport feature was negotiated. */
  has(feature: TransportFeature): boolean {
    return hasFeature(this.features, transportFeatures[feature].bit);
  }

  /** Whether a protocol feature was negotiated. */
  hasProtocol(name: ProtocolFeature): boolean {
    return hasProtocolFeature(this.protocol, name);
  }

  get isPacked(): boolean {
    return this.has("RING_PACKED");
  }

  /** The ring of a queue. */
  ring(index: number): Ring {
    const ring = this.rings[index];
    if (ring === undefined) {
      throw new RequestError(`Expected a queue below ${this.rings.length}, got ${index}`);
    }
    return ring;
  }

  /** The ring of a queue, which has to be stopped. */
  stoppedRing(index: number): Ring {
    const ring = this.ring(index);
    if (ring.running) throw new RequestError(`Queue ${index} runs; stop it first`);
    return ring;
  }

  /** Forgets the in-flight records; no ring may be running. */
  dropInflight(): void {
    this.inflight?.[Symbol.dispose]();
    this.inflight = undefined;
  }

  /** Runs `work` while nothing else changes rings and memory. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Awaits what a front-end can hold up, and records it where it does. */
  async unlessStuck(what: string, work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!(error instanceof StuckError)) throw error;
      this.host.record.refused(what, error.message);
    }
  }
}
