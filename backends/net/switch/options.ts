/**
 * The command line flags of a switch.
 *
 * @module
 */

import {
  defaultOptions,
  OptionError,
  type Options,
  type OptionValues,
  parseSettings,
} from "../../../mod.ts";
import { captureOptions } from "../capture/recorder.ts";
import { impairmentFrom, impairmentOptions } from "../impairment/impairment.ts";
import { netOptions } from "../options.ts";
import { checkPort } from "../ports.ts";
import type { TrafficOptions } from "../traffic.ts";
import { MAX_GUESTS } from "./switch.ts";

/** What each port of a switch can have for itself. */
const trafficSettings = { pcap: captureOptions.pcap, ...impairmentOptions };

/** What the port of a guest can have. */
const portSettings = {
  mac: { type: "text", placeholder: "MAC", about: "The only address that the guest may use" },
  ...trafficSettings,
} as const satisfies Options;

/** The options of a switch. */
export const switchOptions = {
  port: {
    type: "text",
    placeholder: "PATH",
    about:
      "Listen on a Unix socket for a guest; once for each guest. With PATH,mac=MAC the guest " +
      "may use that address only, and no other guest may; PATH,delay=20ms,pcap=FILE and so on " +
      "are for this guest, in place of the flags below",
  },
  uplink: {
    type: "text",
    placeholder: "KIND",
    about: "Join the guests to another network as net does: tap:NAME, user, stream:PATH, " +
      "stream:HOST:PORT or handler:FILE[,NAME=VALUE]",
  },
  uplinkOptions: {
    type: "text",
    placeholder: "NAME=VALUE,…",
    about: "Impair and capture the uplink: delay=20ms,pcap=FILE and so on",
    needs: "uplink",
  },
  isolate: {
    type: "flag",
    about: "Let guests reach the uplink only, and not each other",
    needs: "uplink",
  },
  mtu: {
    type: "number",
    placeholder: "BYTES",
    least: 68,
    most: 65_535,
    about: "The largest IP packet; by default 1500, and of the uplink its own",
  },
  pcap: {
    ...captureOptions.pcap,
    about: "Capture packets into a pcapng file, with an interface for each port and the uplink",
  },
  pcapSnap: captureOptions.pcapSnap,
  pcapMax: { ...captureOptions.pcapMax, needs: undefined }, // ports may have files of their own
  ...impairmentOptions,
} as const satisfies Options;

/** What the user gave. */
export type SwitchOptions = OptionValues<typeof switchOptions>;

/**
 * What a guest's port is to have: `PATH[,NAME=VALUE…]`, over what holds for all.
 *
 * @param number Its number in the switch.
 * @throws {OptionError} When there is anything else.
 */
export function portOptions(
  options: SwitchOptions,
  number: number,
): { mac?: Mac; traffic: TrafficOptions } {
  const [, ...words] = settingsOf(options.port ?? "");
  const { mac, ...own } = parseSettings("port", "a port", portSettings, words);
  // With one seed for all, all would lose the same packets.
  const seed = options.seed === undefined ? undefined : (options.seed + number) % 2 ** 32;
  return {
    mac: mac === undefined ? undefined : parseMac(mac),
    traffic: { ...options, seed, ...own },
  };
}

/**
 * Checks what the flags alone tell of a switch and its ports.
 *
 * @param instances The flags of each port.
 * @throws {OptionError} When one is wrong, or they contradict each other.
 */
export function checkSwitchOptions(instances: readonly SwitchOptions[]): void {
  if (instances.length > MAX_GUESTS) {
    throw new OptionError(`--port is for up to ${MAX_GUESTS} guests, got ${instances.length}`);
  }
  const owners = new Map<string, string | undefined>();
  const ofPorts: TrafficOptions[] = [];
  for (const [number, options] of instances.entries()) {
    const { mac, traffic } = portOptions(options, number);
    impairmentFrom(traffic);
    ofPorts.push(traffic);
    if (mac === undefined) continue;
    const key = mac.words.join();
    if (owners.has(key)) {
      throw new OptionError(
        `Expected another mac= for each --port, got ${mac.text} for ${owners.get(key)} and ` +
          options.port,
      );
    }
    owners.set(key, options.port);
  }
  const { uplink, mtu, pcapMax } = instances[0];
  const ofUplink = uplink === undefined ? undefined : uplinkTraffic(instances[0]);
  if (uplink !== undefined) checkPort(uplinkOptions(uplink, mtu));
  if (ofUplink !== undefined) impairmentFrom(ofUplink);
  const captures = [...ofPorts, ofUplink].some((traffic) => traffic?.pcap !== undefined);
  if (!captures && pcapMax !== captureOptions.pcapMax.default) {
    throw new OptionError(
      "--pcap-max has no effect without --pcap; leave it out, or add --pcap=FILE",
    );
  }
}

/**
 * What the uplink is to have. Impairments for all are those of guests.
 *
 * @throws {OptionError} When it is given anything else.
 */
export function uplinkTraffic(options: SwitchOptions): TrafficOptions {
  const { pcap, pcapSnap, pcapMax, seed, uplinkOptions } = options;
  const words = uplinkOptions === undefined ? [] : settingsOf(uplinkOptions);
  const own = parseSettings("uplink-options", "an uplink", trafficSettings, words);
  return { ...defaultOptions(impairmentOptions), pcap, pcapSnap, pcapMax, seed, ...own };
}

/** Divides at commas, but not in `delay=tx:1ms,rx:2ms`. */
function settingsOf(text: string): string[] {
  return text.split(/,(?!(?:tx|rx):)/);
}

/** An address, also as three little-endian words. */
interface Mac {
  readonly text: string;
  readonly words: readonly [number, number, number];
}

function parseMac(text: string): Mac {
  const isMac = /^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text);
  const [a, b, c, d, e, f] = isMac ? text.split(":").map((byte) => parseInt(byte, 16)) : [1];
  if ((a & 1) !== 0 || a + b + c + d + e + f === 0) {
    throw new OptionError(
      "mac= of --port takes the address of one card, such as 52:54:00:12:34:56; got " +
        JSON.stringify(text),
    );
  }
  return { text, words: [a | b << 8, c | d << 8, e | f << 8] };
}

/**
 * The options of `net` for a value of `--uplink`.
 *
 * @throws {OptionError} When it is no uplink.
 */
export function uplinkOptions(uplink: string, mtu?: number): OptionValues<typeof netOptions> {
  return { ...defaultOptions(netOptions), mtu, ...uplinkFlags(uplink) };
}

function uplinkFlags(uplink: string): Record<string, unknown> {
  const [, kind, place] = /^(tap|user|stream|handler)(?::(.+))?$/.exec(uplink) ?? [];
  if (kind === "handler" && place !== undefined) {
    const [, handler, handlerOptions] = /^([^,]*),?(.*)$/.exec(place)!;
    return { handler, handlerOptions };
  }
  if (kind !== undefined && (kind === "user") === (place === undefined)) {
    return { [kind]: place ?? true };
  }
  throw new OptionError(
    `--uplink takes tap:NAME, user, stream:PATH, stream:HOST:PORT or handler:FILE[,NAME=VALUE], ` +
      `got ${JSON.stringify(uplink)}`,
  );
}
