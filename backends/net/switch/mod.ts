/**
 * A switch: network cards of several guests, served by one process, joined to each other.
 *
 * It has an instance for each guest. All of them run on one thread, so they share the objects of
 * this module there.
 *
 * @module
 */

import { defaultOptions, defineDevice } from "../../../mod.ts";
import net, { openCard } from "../mod.ts";
import { netOptions } from "../options.ts";
import { ALL_OFFLOADS, type Offload } from "../packet.ts";
import type { Network, PortPlan } from "../port.ts";
import { openNetwork, openPort } from "../ports.ts";
import { macOf, switchOptions, uplinkOptions } from "./options.ts";
import { MAX_GUESTS, theSwitch } from "./switch.ts";
import { Uplink } from "./uplink.ts";

/** Asks the data half for the addresses that the switch knows. */
const LIST_MACS = "macs";

/** The uplink as the first instance opened it. */
interface UplinkPlan {
  readonly plan: PortPlan;
  readonly offloads: readonly Offload[];
}

/** A switch of network cards. */
export default defineDevice({
  name: "switch",
  deviceId: net.deviceId,
  about: "A switch with a network card for each guest",
  module: import.meta.url,
  queues: net.queues,
  features: net.features,
  options: switchOptions,
  threads: "one",
  instances: "port",

  async open({ options: { port = "", uplink, isolate, mtu }, instance, log, post }) {
    if (instance.number >= MAX_GUESTS) throw new RangeError(`Expected at most ${MAX_GUESTS} ports`);
    const mac = macOf(port);
    // The first instance has the uplink for all.
    const joined = uplink === undefined || instance.number > 0
      ? undefined
      : await openUplink(uplink, mtu, log);
    const network: Network = {
      plan: {
        ...{ kind: "switch", number: instance.number, isIsolated: isolate },
        ...mac !== undefined && { mac },
      },
      offloads: ALL_OFFLOADS,
      mtu: mtu ?? 1500,
      report: () => ({ port: `switch, ${mac === undefined ? "any address" : port.split(",")[1]}` }),
      [Symbol.asyncDispose]: async () => await joined?.[Symbol.asyncDispose](),
    };
    const card = openCard(network, { options: defaultOptions(netOptions), log, post });
    return {
      ...card,
      shared: {
        ...card.shared,
        ...{ number: instance.number, name: instance.name, mac },
        uplink: joined && { plan: joined.plan, offloads: joined.offloads },
      },
      queries: {
        ...card.queries,
        macs: {
          about: "The addresses that the switch knows, with their ports",
          run: async () => (await post(LIST_MACS))[0],
        },
      },
    };
  },

  handlers(context) {
    const { shared: { number, name, mac, uplink, mtu }, watch, keep, notice } = context;
    theSwitch.name(number, name, mac);
    const half = net.handlers({
      ...context,
      options: { ...defaultOptions(netOptions), queuePairs: 1 },
    });
    const joined = uplink && new Uplink(
      theSwitch,
      { watch, keep, notice, mtu },
      uplink.offloads,
      (owner) => openPort(uplink.plan, owner, 0),
    );
    return {
      ...half,
      report: () => ({ ...half.report?.(), ...joined && { uplink: joined.report() } }),
      onMessage: (message) => message === LIST_MACS ? theSwitch.list() : half.onMessage!(message),
      close() {
        half.close?.();
        joined?.[Symbol.dispose]();
      },
    };
  },
});

async function openUplink(
  uplink: string,
  mtu: number | undefined,
  log: (message: string) => void,
): Promise<Network> {
  const network = await openNetwork({
    ...{ ...defaultOptions(netOptions), queuePairs: 1 },
    ...{ mtu, ...uplinkOptions(uplink) },
  }, log);
  const all = Object.fromEntries(ALL_OFFLOADS.map((name) => [name, true]));
  network.onFeatures?.(all as Record<Offload, boolean>);
  return network;
}
