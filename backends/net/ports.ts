/**
 * The kinds of ports, by what the user gave.
 *
 * @module
 */

import { flagName, OptionError, type OptionValues } from "../../mod.ts";
import { HandlerPort, openHandlerNetwork } from "./handler/handler_port.ts";
import { forwardArguments, openUserNetwork } from "./passt.ts";
import { openStreamNetwork } from "./stream_network.ts";
import { StreamPort } from "./stream_port.ts";
import { openTapNetwork, parseTapFds, TapPort } from "./tap_port.ts";
import { NullPort, SourcePort } from "./measuring_ports.ts";
import type { netOptions } from "./options.ts";
import { ALL_OFFLOADS } from "./packet.ts";
import { theSwitch } from "./switch/switch.ts";
import { SwitchPort } from "./switch/switch_port.ts";
import type { Network, Port, PortOwner, PortPlan } from "./port.ts";

/** The options that name a port. */
const KINDS = [
  "tap",
  "tapFd",
  "user",
  "stream",
  "streamListen",
  "handler",
  "null",
  "source",
] as const;

/** Why a port has one pair of queues. */
const SINGLE: Readonly<Record<string, string>> = {
  user: "passt has one socket",
  stream: "it is one socket",
  streamListen: "it is one socket",
  handler: "its function sees all packets",
};

/**
 * Checks what the user's options alone tell of a port.
 *
 * @throws {OptionError} When they name no port, or several, or others than that port takes.
 */
export function checkPort(options: OptionValues<typeof netOptions>): void {
  const given = KINDS.filter((kind) => options[kind] !== undefined && options[kind] !== false);
  if (given.length !== 1) {
    const flags = (names: readonly string[]) => names.map((name) => `--${flagName(name)}`);
    throw new OptionError(
      `Expected one of ${flags(KINDS).join(", ")}; got ${
        flags(given).join(" and ") || "none; --user needs no set-up"
      }`,
    );
  }
  const [kind] = given;
  const { bridge, forward, queuePairs, tapFd } = options;
  if (bridge !== undefined && !kind.startsWith("tap")) {
    throw new OptionError(`--bridge is for --tap, got --${flagName(kind)}; leave it out`);
  }
  if (queuePairs > 1 && kind in SINGLE) {
    throw new OptionError(
      `--${flagName(kind)} has one pair of queues: ${SINGLE[kind]}; leave --queue-pairs out`,
    );
  }
  if (tapFd !== undefined) parseTapFds(tapFd, queuePairs);
  forwardArguments(forward);
}

/**
 * Opens what the user's options name.
 *
 * @param log Takes messages for the person who runs the device.
 * @throws {OptionError} When it cannot be had.
 */
export async function openNetwork(
  options: OptionValues<typeof netOptions>,
  log: (message: string) => void,
): Promise<Network> {
  const { source, mtu = 1500 } = options;
  if (options.tap !== undefined || options.tapFd !== undefined) return openTapNetwork(options, log);
  if (options.handler !== undefined) return await openHandlerNetwork(options.handler, options);
  if (options.user) return await openUserNetwork(options, log);
  if (options.stream !== undefined || options.streamListen !== undefined) {
    return await openStreamNetwork(options, log);
  }
  const plan: PortPlan = source === undefined
    ? { kind: "null" }
    : { kind: "source", frameBytes: source };
  return {
    plan,
    offloads: ALL_OFFLOADS,
    mtu,
    report: () => ({ port: plan.kind }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Makes the port of a queue pair, on the pair's thread. */
export function openPort(plan: PortPlan, owner: PortOwner, pair: number): Port {
  switch (plan.kind) {
    case "tap":
      return new TapPort(plan, owner, pair);
    case "handler":
      return new HandlerPort(plan, owner);
    case "stream":
      return new StreamPort(plan, owner);
    case "switch":
      return new SwitchPort(theSwitch, plan, owner);
    case "null":
      return new NullPort();
    case "source":
      return new SourcePort(owner, plan.frameBytes);
  }
}
