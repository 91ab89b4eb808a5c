/**
 * Recordings of front-ends: captures that `vhostd --wire` wrote, as sequences of messages, with the
 * kinds of the descriptors that came along.
 *
 * @module
 */

import { readCapture } from "../linux/capture/read_pcapng.ts";
import { decodeCaptured, LINKTYPE_CAPTURE } from "../vhost_user/captured_packet.ts";
import { decodeHeader, frontendMessages, HEADER_BYTES, ProtocolError } from "../vhost_user/mod.ts";

/** A descriptor that a message needs: of a kind, or memory of a size. */
export type NeededDescriptor = { kind: "eventfd" | "socket" } | { memoryBytes: number };

/** A message as bytes, and how many descriptors came with it. */
export interface RecordedMessage {
  /** Header and payload. */
  bytes: Uint8Array;
  /** How many descriptors; more than the message may have are one too many. */
  fds: number;
}

/** A request of the front-end. */
export interface RecordedRequest extends RecordedMessage {
  /** Its number in the connection, from 1. */
  number: number;
  /** The answer that it got. */
  reply?: RecordedMessage;
}

/** A connection of a front-end. */
export interface RecordedConnection {
  /** The name of its device in the file. */
  device: string;
  requests: RecordedRequest[];
  /** Why the back-end ended it, if it did. */
  endedByBackend?: string;
}

/**
 * Reads a capture that `--wire` wrote.
 *
 * @returns Its connections, in the order in which they began.
 * @throws {RangeError} When it is no such capture, or messages are missing in it.
 */
export function readRecording(file: Uint8Array): RecordedConnection[] {
  const { packets, interfaces, isIncomplete } = readCapture(file);
  if (interfaces.some(({ linkType }) => linkType !== LINKTYPE_CAPTURE)) {
    throw new RangeError("Expected a capture of vhost-user messages, got other packets");
  }
  if (isIncomplete) throw new RangeError("Expected a whole capture, got one that lacks messages");
  const connections = new Map<number, RecordedConnection>();
  for (const { interfaceId, bytes: packet } of packets) {
    const { kind, side, channel, connection: number, fds, bytes } = decodeCaptured(packet);
    if (kind === "connected") {
      connections.set(number, { device: interfaces[interfaceId].name, requests: [] });
    }
    const connection = connections.get(number);
    if (connection === undefined) {
      throw new RangeError(`Expected the begin of connection ${number} before its messages`);
    }
    if (kind === "ended" && side === "back-end") {
      connection.endedByBackend = new TextDecoder().decode(bytes);
    }
    if (kind !== "message" || channel !== "main") continue;
    const { id } = headerOf(bytes);
    const message = { bytes, fds: fds ?? frontendMessages.mostFds(id) + 1 };
    const { requests } = connection;
    if (side === "front-end") requests.push({ ...message, number: requests.length + 1 });
    else if (requests.length > 0) requests[requests.length - 1].reply = message;
  }
  return [...connections.values()];
}

/** @throws {RangeError} When it is no whole message. */
function headerOf(bytes: Uint8Array) {
  try {
    const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
    if (bytes.length === HEADER_BYTES + header.size) return header;
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
  }
  throw new RangeError("Expected whole messages in the capture, got a part of one");
}

/** The kinds of the descriptors that belong to a request. */
export function descriptorsOf({ bytes, fds }: RecordedMessage): NeededDescriptor[] {
  const eventfds = Array.from({ length: fds }, () => ({ kind: "eventfd" as const }));
  let message;
  try {
    message = frontendMessages.decode(headerOf(bytes), bytes.subarray(HEADER_BYTES), fds);
  } catch (error) {
    if (error instanceof ProtocolError) return eventfds;
    throw error;
  }
  if (fds === 0) return [];
  const memory = (offset: bigint, bytes: bigint) => ({
    memoryBytes: Math.min(Number(offset + bytes), Number.MAX_SAFE_INTEGER),
  });
  switch (message.request) {
    case "SET_MEM_TABLE":
      return message.regions.map(({ mmapOffset, size }) => memory(mmapOffset, size));
    case "ADD_MEM_REG":
    case "REM_MEM_REG":
      return [memory(message.region.mmapOffset, message.region.size)];
    case "SET_INFLIGHT_FD":
      return [memory(message.mmapOffset, message.mmapSize)];
    case "SET_LOG_BASE":
      return [memory(message.offset, message.size)];
    case "SET_BACKEND_REQ_FD":
    case "GPU_SET_SOCKET":
      return [{ kind: "socket" }];
    default:
      return eventfds;
  }
}
