import { ProtocolError } from "./errors.ts";
import { u32, viewOf } from "./wire.ts";

/** Size of the header in front of every message. */
export const HEADER_BYTES = 12;

/**
 * The largest payload that is read. The largest of all requests has 1072 bytes
 * (CREATE_CRYPTO_SESSION); the rest is room for requests that this codec does not know, so that
 * they can be read past and refused one by one.
 */
export const MAX_PAYLOAD_BYTES = 4096;

/** The one version of the protocol. */
const VERSION = 1;

// Bits of the header's flags.
const VERSION_MASK = 0x3;
const REPLY = 0x4;
const NEED_REPLY = 0x8;
const KNOWN_FLAGS = VERSION_MASK | REPLY | NEED_REPLY;

/** What stands in front of every message: request, flags and size. */
export interface Header {
  /** Number of the request. */
  id: number;
  /** Version of the protocol: 1. */
  version: number;
  /** The message is a reply. */
  reply: boolean;
  /** The sender wants an acknowledgement (REPLY_ACK). */
  needReply: boolean;
  /** Size of the payload that follows, in bytes. */
  size: number;
}

/**
 * Decodes a header.
 *
 * @param bytes Exactly {@linkcode HEADER_BYTES} bytes
 * @returns The header; its request need not be known
 * @throws {ProtocolError} With scope "stream", if it cannot be a header
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeHeader } from "./mod.ts";
 *
 * const bytes = new Uint8Array([8, 0, 0, 0, 0x9, 0, 0, 0, 8, 0, 0, 0]);
 * assertEquals(decodeHeader(bytes), {
 *   id: 8,
 *   version: 1,
 *   reply: false,
 *   needReply: true,
 *   size: 8,
 * });
 * ```
 */
export function decodeHeader(bytes: Uint8Array): Header {
  const refuse = (message: string): never => {
    throw new ProtocolError("stream", message);
  };
  if (bytes.length !== HEADER_BYTES) {
    refuse(`Expected a header of ${HEADER_BYTES} bytes, got ${bytes.length}`);
  }
  const view = viewOf(bytes);
  const id = u32.get(view, 0);
  const flags = u32.get(view, 4);
  const size = u32.get(view, 8);
  const version = flags & VERSION_MASK;
  if (version !== VERSION) {
    refuse(`Expected protocol version ${VERSION}, got ${version}`);
  }
  if ((flags & ~KNOWN_FLAGS) !== 0) {
    refuse(`Expected no header flags above bit 3, got 0x${flags.toString(16)}`);
  }
  if (size > MAX_PAYLOAD_BYTES) {
    refuse(`Expected at most ${MAX_PAYLOAD_BYTES} payload bytes, got ${size}`);
  }
  return {
    id,
    version,
    reply: (flags & REPLY) !== 0,
    needReply: (flags & NEED_REPLY) !== 0,
    size,
  };
}

/** Header and payload of a message. */
export function encodeMessage(
  id: number,
  flags: { reply?: boolean; needReply?: boolean },
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = viewOf(bytes);
  u32.set(view, 0, id);
  u32.set(view, 4, VERSION | (flags.reply ? REPLY : 0) | (flags.needReply ? NEED_REPLY : 0));
  u32.set(view, 8, payload.length);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}
