import { MAX_FDS } from "./requests.ts";
import { type Field, padded, struct, u32, u8, viewOf } from "./wire.ts";

/** The link type of captures: LINKTYPE_USER15, which tcpdump.org reserves for private use. */
export const LINKTYPE_CAPTURE = 162;

/** The version of {@linkcode CapturedPacket}. */
const VERSION = 1;

/** What a packet of a capture is. */
export const capturedKinds = ["message", "connected", "ended", "note"] as const;

/** The two sides of a connection. */
export const capturedSides = ["front-end", "back-end"] as const;

/** The channels of a connection: the front-end's, and the back-end's own. */
export const capturedChannels = ["main", "back"] as const;

/** Stands for a number of descriptors that is too large. */
const TOO_MANY_FDS = 255;

/** A packet of a capture of vhost-user: a message, an event of the connection, or a note. */
export interface CapturedPacket {
  /** A note says what is wrong with what came before it. */
  kind: typeof capturedKinds[number];
  /** The side that sent the message or ended the connection. */
  side: typeof capturedSides[number];
  /** The channel of a message. */
  channel: typeof capturedChannels[number];
  /** The number of the connection, from 1. */
  connection: number;
  /** How many descriptors came with a message; undefined for more than it may have. */
  fds: number | undefined;
  /** Header and payload of a message; the text of anything else, in UTF-8. */
  bytes: Uint8Array;
}

/** The head of a packet, 12 bytes. */
const head: Field<Record<"version" | "kind" | "side" | "channel" | "connection" | "fds", number>> =
  struct({
    version: u8,
    kind: u8,
    side: u8,
    channel: u8,
    connection: u32,
    fds: padded(u8, { after: 3 }),
  });

/** Encodes a packet of a capture. */
export function encodeCaptured(packet: CapturedPacket): Uint8Array {
  const { connection, bytes, fds = TOO_MANY_FDS } = packet;
  const encoded = new Uint8Array(head.bytes + bytes.length);
  head.set(viewOf(encoded), 0, {
    version: VERSION,
    kind: capturedKinds.indexOf(packet.kind),
    side: capturedSides.indexOf(packet.side),
    channel: capturedChannels.indexOf(packet.channel),
    connection,
    fds,
  });
  encoded.set(bytes, head.bytes);
  return encoded;
}

/**
 * Decodes a packet of a capture.
 *
 * @throws {RangeError} When it is none of this version.
 */
export function decodeCaptured(packet: Uint8Array): CapturedPacket {
  if (packet.length < head.bytes) {
    throw new RangeError(`Expected at least ${head.bytes} bytes, got ${packet.length}`);
  }
  const { version, fds, connection, ...numbers } = head.get(viewOf(packet), 0);
  if (version !== VERSION) throw new RangeError(`Expected version ${VERSION}, got ${version}`);
  if (fds > MAX_FDS && fds !== TOO_MANY_FDS) {
    throw new RangeError(`Expected at most ${MAX_FDS} descriptors, got ${fds}`);
  }
  const kind = capturedKinds[numbers.kind];
  const side = capturedSides[numbers.side];
  const channel = capturedChannels[numbers.channel];
  if (kind === undefined || side === undefined || channel === undefined) {
    throw new RangeError(`Expected a kind, a side and a channel, got ${Object.values(numbers)}`);
  }
  const bytes = packet.slice(head.bytes);
  return { kind, side, channel, connection, fds: fds === TOO_MANY_FDS ? undefined : fds, bytes };
}
