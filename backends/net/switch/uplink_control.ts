/**
 * The control half of the uplink of a switch.
 *
 * @module
 */

import type { DeviceCommand } from "../../../mod.ts";
import { ALL_OFFLOADS, type Offload } from "../packet.ts";
import type { Network, PortPlan } from "../port.ts";
import { openNetwork } from "../ports.ts";
import { Traffic, type TrafficMessage } from "../traffic.ts";
import { type SwitchOptions, uplinkOptions, uplinkTraffic } from "./options.ts";

/** A message to the data half, besides those of a card. */
export interface UplinkMessage {
  readonly uplink?: TrafficMessage;
}

/** What the data half makes the uplink from. */
export interface UplinkPlan extends Required<TrafficMessage> {
  readonly plan: PortPlan;
  readonly offloads: readonly Offload[];
}

/** The network behind a switch, and what happens to packets on their way there and back. */
export class UplinkControl implements AsyncDisposable {
  readonly traffic: Traffic;
  readonly commands: Readonly<Record<string, DeviceCommand>>;
  readonly queries: Readonly<Record<string, DeviceCommand>>;
  readonly #network: Network;

  private constructor(network: Network, traffic: Traffic) {
    this.#network = network;
    this.traffic = traffic;
    this.commands = ofUplink(traffic.commands);
    this.queries = ofUplink(traffic.queries);
  }

  /**
   * Opens the network that `--uplink` names.
   *
   * @throws {OptionError} When that or an option of the uplink is wrong.
   */
  static async open(
    options: SwitchOptions & { readonly uplink: string },
    log: (message: string) => void,
    post: (message: UplinkMessage) => Promise<unknown>,
  ): Promise<UplinkControl> {
    await using made = new AsyncDisposableStack();
    const network = made.use(
      await openNetwork(uplinkOptions(options.uplink, options.mtu), log),
    );
    const all = Object.fromEntries(ALL_OFFLOADS.map((name) => [name, true]));
    network.onFeatures?.(all as Record<Offload, boolean>);
    const traffic = new Traffic(uplinkTraffic(options), {
      ...{ name: "uplink", pairs: 1, log },
      post: (message) => post({ uplink: message }),
      setLink: network.setLink,
    });
    made.move();
    return new UplinkControl(network, traffic);
  }

  get plan(): UplinkPlan {
    const { plan, offloads } = this.#network;
    return { plan, offloads, ...this.traffic.shared };
  }

  report(): Record<string, unknown> {
    return { ...this.#network.report(), ...this.traffic.report() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.traffic[Symbol.asyncDispose]();
    await this.#network[Symbol.asyncDispose]();
  }
}

/** Commands or queries by their names for the uplink: `uplink-impair`. */
function ofUplink(
  commands: Readonly<Record<string, DeviceCommand>>,
): Record<string, DeviceCommand> {
  return Object.fromEntries(
    Object.entries(commands).map(([name, { about, run }]) => [
      `uplink-${name}`,
      { about: `${about} (of the uplink)`, run },
    ]),
  );
}
