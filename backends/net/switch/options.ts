/**
 * The command line flags of a switch.
 *
 * @module
 */

import { OptionError, type Options } from "../../../mod.ts";

/** The options of a switch. */
export const switchOptions = {
  port: {
    type: "text",
    placeholder: "PATH",
    about:
      "Listen on a Unix socket for a guest; once for each guest. With PATH,mac=MAC the guest " +
      "may use that address only, and no other guest may",
  },
  uplink: {
    type: "text",
    placeholder: "KIND",
    about: "Join the guests to another network as net does: tap:NAME, user, stream:PATH, " +
      "stream:HOST:PORT or handler:FILE[,NAME=VALUE]",
  },
  isolate: { type: "flag", about: "Let guests reach the uplink only, and not each other" },
  mtu: {
    type: "number",
    placeholder: "BYTES",
    least: 68,
    most: 65_535,
    about: "The largest IP packet; by default the uplink's, or 1500",
  },
} as const satisfies Options;

/**
 * The address in the value of `--port`, as three little-endian words.
 *
 * @throws {OptionError} When it is none, or more than that is there.
 */
export function macOf(port: string): [number, number, number] | undefined {
  const [, ...settings] = port.split(",");
  if (settings.length === 0) return undefined;
  const [, text] = /^mac=((?:[0-9a-f]{2}:){5}[0-9a-f]{2})$/i.exec(settings.join(",")) ?? [];
  const bytes = text?.split(":").map((byte) => parseInt(byte, 16)) ?? [1];
  if ((bytes[0] & 1) !== 0) {
    throw new OptionError(
      `--port takes PATH or PATH,mac=MAC with the address of one card, such as ` +
        `mac=52:54:00:12:34:56; got ${JSON.stringify(port)}`,
    );
  }
  const [a, b, c, d, e, f] = bytes;
  return [a | b << 8, c | d << 8, e | f << 8];
}

/** The flags of `net` for a value of `--uplink`. */
export function uplinkOptions(uplink: string): Record<string, unknown> {
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
