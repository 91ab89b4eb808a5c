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
import { ALL_OFFLOADS } from "../packet.ts";
import type { Network } from "../port.ts";
import { openPort } from "../ports.ts";
import type { TrafficMessage } from "../traffic.ts";
import { checkSwitchOptions, portOptions, switchOptions } from "./options.ts";
import { theSwitch } from "./switch.ts";
import { Uplink } from "./uplink.ts";
import { UplinkControl, type UplinkMessage } from "./uplink_control.ts";

/** What the data half is asked for: the addresses that the switch knows, and its ports. */
const LIST_MACS = "macs", LIST_PORTS = "ports";

/** A switch of network cards. */
export default defineDevice({
  name: "switch",
  deviceId: net.deviceId,
  about: "A switch with a network card for each guest",
  module: import.meta.url,
  panel: import.meta.resolve("./panel.ts"),
  queues: net.queues,
  features: net.features,
  options: switchOptions,
  checkOptions: checkSwitchOptions,
  threads: "one",
  instances: "port",

  async open({ options, instance: { number, name }, log, post }) {
    const { mac, traffic } = portOptions(options, number);
    const { mtu = 1500, isolate: isIsolated } = options;
    await using made = new AsyncDisposableStack();
    // The first instance has the uplink for all.
    const uplink = options.uplink === undefined || number > 0
      ? undefined
      : made.use(await UplinkControl.open({ ...options, uplink: options.uplink }, log, post));
    const network: Network = {
      plan: {
        ...{ kind: "switch", number, isIsolated },
        ...mac !== undefined && { mac: mac.words },
      },
      offloads: ALL_OFFLOADS,
      mtu,
      report: () => ({ port: `switch, ${mac === undefined ? "any address" : `mac=${mac.text}`}` }),
      [Symbol.asyncDispose]: async () => await uplink?.[Symbol.asyncDispose](),
    };
    const card = openCard(network, { name, options: { ...traffic, queuePairs: 1 }, log, post });
    made.move();
    return {
      ...card,
      shared: { ...card.shared, number, name, mac: mac?.words, isIsolated, uplink: uplink?.plan },
      onMessage() {
        card.onMessage();
        uplink?.traffic.onMessage();
      },
      commands: { ...card.commands, ...uplink?.commands },
      queries: {
        ...card.queries,
        ...uplink?.queries,
        macs: {
          about: "The addresses that the switch knows, with their ports",
          run: async () => (await post(LIST_MACS))[0],
        },
        ports: {
          about: "The guests' ports: their state, and what passed and was dropped",
          run: async () => (await post(LIST_PORTS))[0],
        },
      },
      report: () => ({ ...card.report(), ...uplink && { uplink: uplink.report() } }),
    };
  },

  async handlers(context) {
    const { shared: { number, name, mac, isIsolated, counts, uplink, mtu } } = context;
    const { watch, keep, notice, post } = context;
    theSwitch.add(number, { name, isIsolated, counts }, mac);
    const half = await net.handlers({
      ...context,
      options: { ...defaultOptions(netOptions), queuePairs: 1 },
    });
    const joined = uplink && new Uplink(
      theSwitch,
      { watch, keep, notice, mtu, wake: () => post(null) },
      uplink.offloads,
      (owner) => openPort(uplink.plan, owner, 0),
    );
    const change = ({ impairment, capture }: TrafficMessage) => {
      if (impairment !== undefined) joined?.impair(impairment);
      if (capture !== undefined) joined?.capture(capture);
    };
    if (uplink !== undefined) change(uplink);
    return {
      ...half,
      report: () => ({ ...half.report?.(), ...joined && { uplink: joined.report() } }),
      onMessage(message) {
        if (message === LIST_MACS) return theSwitch.list();
        if (message === LIST_PORTS) return theSwitch.ports();
        const { uplink } = message as UplinkMessage;
        return uplink === undefined ? half.onMessage!(message) : change(uplink);
      },
      close() {
        half.close?.();
        joined?.[Symbol.dispose]();
      },
    };
  },
});
