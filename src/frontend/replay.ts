/**
 * Replays recorded front-ends against a back-end.
 *
 * Guest memory, eventfds and sockets are new ones, with the recorded addresses and sizes. The
 * content of memory is not recorded: rings are empty, so the device serves no requests.
 *
 * @module
 */

import {
  closeAll,
  createEventfd,
  createMemfd,
  type Fd,
  Mapping,
  PAGE_BYTES,
  UnixConnection,
} from "../linux/mod.ts";
import { libc } from "../linux/libc.ts";
import { encodeMessage } from "../vhost_user/header.ts";
import {
  decodeHeader,
  decodePayload,
  type FrontendMessage,
  frontendMessages,
  frontendRequests,
  HEADER_BYTES,
  type MemoryRegion,
  ProtocolError,
  protocolFeatureNames,
  type RequestRule,
} from "../vhost_user/mod.ts";
import { hasFeature, nameFeatures, transportFeatures } from "../virtio/mod.ts";
import { BackChannel } from "./back_channel.ts";
import { connectUnix, ControlChannel, type RawMessage } from "./control_channel.ts";
import { FrontendError } from "./frontend_error.ts";
import {
  descriptorsOf,
  type RecordedConnection,
  type RecordedMessage,
  type RecordedRequest,
} from "./recording.ts";

const SHUT_WR = 1;

/** The offset of `idx` in the available and the used ring: virtio 1.3, 2.7.6 and 2.7.8. */
const RING_INDEX = 2;

/** A difference between a recording and what a back-end did. */
export interface ReplayDifference {
  /** The number of the request in the connection, from 1; null for the connection's end. */
  message: number | null;
  /** The request's name, or `end`. */
  request: string;
  /** What was recorded, and what came. */
  recorded: string;
  got: string;
}

/** What is known of a split ring. */
interface RingPlace {
  available: bigint;
  used: bigint;
  base: number;
}

/** A front-end that says what another one said. It keeps in-flight records between connections. */
export class Replay implements AsyncDisposable {
  readonly #path: string;
  readonly #timeoutMs: number;
  #inflight: Fd | undefined;

  /** @param timeoutMs Time for each answer. */
  constructor(path: string, timeoutMs: number) {
    this.#path = path;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Plays a connection up to the first difference.
   *
   * @returns The difference, or undefined.
   * @throws {LinuxError} When no process listens, or memory cannot be made.
   */
  async play(connection: RecordedConnection): Promise<ReplayDifference | undefined> {
    await using played = new PlayedConnection(await connectUnix(this.#path), this.#timeoutMs);
    played.inflight = this.#inflight;
    try {
      for (const request of connection.requests) {
        const difference = await played.exchange(request);
        if (difference !== undefined) return difference;
      }
      return await played.end(connection.endedByBackend);
    } finally {
      this.#inflight = played.inflight;
    }
  }

  /** Closes the in-flight record. */
  async [Symbol.asyncDispose](): Promise<void> {
    await null;
    this.#inflight?.close();
  }
}

/** A connection of a {@linkcode Replay}. */
class PlayedConnection implements AsyncDisposable {
  /** The in-flight record that the back-end made. */
  inflight: Fd | undefined;
  readonly #socket: UnixConnection;
  readonly #channel: ControlChannel;
  readonly #owned = new AsyncDisposableStack();
  /** Regions of guest memory, and their files. */
  readonly #regions: (MemoryRegion & { fd: Fd })[] = [];
  readonly #rings = new Map<number, RingPlace>();
  #isPacked = false;

  constructor(socket: UnixConnection, timeoutMs: number) {
    this.#socket = socket;
    this.#channel = this.#owned.use(new ControlChannel(socket, { timeoutMs }));
  }

  /** Sends a request, and compares the answer with the recorded one. */
  async exchange(request: RecordedRequest): Promise<ReplayDifference | undefined> {
    const { id } = headerOf(request);
    const name = frontendMessages.nameOf(id) ?? `request ${id}`;
    const differs = (recorded: string, got: string) => ({
      ...{ message: request.number, request: name, recorded, got },
    });
    const { reply: recorded } = request;
    using sent = new DisposableStack();
    try {
      const fds = this.#prepare(request, sent);
      await this.#channel.send(request.bytes, fds);
      if (recorded === undefined) return undefined;
      const message = await this.#channel.receive();
      if (message === undefined) return differs(shown(name, recorded), "the end of the connection");
      try {
        const got = { bytes: encoded(message), fds: message.fds.length };
        if (!isSame(name, recorded, got)) return differs(shown(name, recorded), shown(name, got));
        if (name === "GET_INFLIGHT_FD" && message.fds.length > 0) {
          this.inflight?.close();
          this.inflight = message.fds.shift();
        }
      } finally {
        closeAll(message.fds);
      }
    } catch (error) {
      const got = endOf(error);
      return differs(recorded === undefined ? "no answer" : shown(name, recorded), got);
    }
    return undefined;
  }

  /** Ends the connection, or expects the back-end to. */
  async end(endedByBackend: string | undefined): Promise<ReplayDifference | undefined> {
    const recorded = endedByBackend === undefined
      ? "no more answers"
      : `the back-end ended the connection: ${endedByBackend}`;
    const differs = (got: string) => ({ message: null, request: "end", recorded, got });
    if (endedByBackend === undefined) libc.shutdown(this.#socket.fd.number, SHUT_WR);
    try {
      const message = await this.#channel.receive();
      if (message === undefined) return undefined;
      closeAll(message.fds);
      const name = frontendMessages.nameOf(message.header.id) ?? `request ${message.header.id}`;
      const got = { bytes: encoded(message), fds: message.fds.length };
      return differs(`one more answer, to ${name}: ${shown(name, got)}`);
    } catch (error) {
      const got = endOf(error);
      return got === CLOSED ? undefined : differs(got);
    }
  }

  /** The descriptors to send with a request; those that are not kept are `sent`'s to close. */
  #prepare(request: RecordedRequest, sent: DisposableStack): number[] {
    const message = decoded(request);
    if (message !== undefined) this.#note(message);
    const isInflight = message?.request === "SET_INFLIGHT_FD";
    return descriptorsOf(request).map((needed, i) => {
      if (isInflight && this.inflight !== undefined) return this.inflight.number;
      if ("memoryBytes" in needed) {
        const fd = this.#owned.use(createMemfd("vhostd-replay", needed.memoryBytes));
        if (message?.request === "SET_MEM_TABLE") this.#regions.push({ ...message.regions[i], fd });
        if (message?.request === "ADD_MEM_REG") this.#regions.push({ ...message.region, fd });
        return fd.number;
      }
      if (needed.kind === "eventfd") return sent.use(createEventfd()).number;
      const [ours, theirs] = UnixConnection.pair();
      this.#owned.use(new BackChannel(ours));
      return sent.use(theirs).fd.number;
    });
  }

  /** Follows what decides where rings lie, and makes one empty before it starts. */
  #note(message: FrontendMessage): void {
    switch (message.request) {
      case "SET_FEATURES":
        this.#isPacked = hasFeature(message.value, transportFeatures.RING_PACKED.bit);
        break;
      case "SET_MEM_TABLE":
        this.#regions.length = 0;
        break;
      case "SET_VRING_ADDR": {
        const { available, used } = message;
        this.#rings.set(message.index, {
          base: 0,
          ...this.#rings.get(message.index),
          available,
          used,
        });
        break;
      }
      case "SET_VRING_BASE": {
        const place = { available: 0n, used: 0n, ...this.#rings.get(message.index) };
        this.#rings.set(message.index, { ...place, base: message.num & 0xffff });
        break;
      }
      case "SET_VRING_KICK": {
        const ring = this.#rings.get(message.index);
        // Zeros are an empty packed ring with any base, and an empty split ring with base 0.
        if (ring === undefined || this.#isPacked) break;
        for (const address of [ring.available, ring.used]) this.#setIndex(address, ring.base);
        break;
      }
    }
  }

  #setIndex(address: bigint, base: number): void {
    for (const { userAddress, size, mmapOffset, fd } of this.#regions) {
      const offset = address - userAddress;
      if (offset < 0n || offset + 4n > size) continue;
      const inFile = Number(mmapOffset + offset);
      const page = Math.floor(inFile / PAGE_BYTES) * PAGE_BYTES;
      using mapping = new Mapping(fd.number, 2 * PAGE_BYTES, page);
      new DataView(mapping.buffer).setUint16(inFile - page + RING_INDEX, base, true);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.disposeAsync();
  }
}

const CLOSED = "the end of the connection";

/** What an exchange that failed got instead of an answer. */
function endOf(error: unknown): string {
  if (error instanceof FrontendError && error.reason === "closed") return CLOSED;
  if (error instanceof FrontendError && error.reason === "timeout") return "no answer in time";
  if (error instanceof ProtocolError) return `what is no message: ${error.message}`;
  throw error;
}

function encoded({ header, payload }: RawMessage): Uint8Array {
  return encodeMessage(header.id, header, payload);
}

function headerOf({ bytes }: RecordedMessage) {
  return decodeHeader(bytes.subarray(0, HEADER_BYTES));
}

/** A request's fields; undefined where it is wrong. */
function decoded(request: RecordedMessage): FrontendMessage | undefined {
  try {
    const { bytes, fds } = request;
    return frontendMessages.decode(headerOf(request), bytes.subarray(HEADER_BYTES), fds);
  } catch (error) {
    if (error instanceof ProtocolError) return undefined;
    throw error;
  }
}

/** Whether two answers are the same. */
function isSame(name: string, recorded: RecordedMessage, got: RecordedMessage): boolean {
  const [a, b] = [recorded, got].map(({ bytes }) => bytes.slice());
  // Where a ring stopped depends on requests, which are not replayed.
  if (name === "GET_VRING_BASE") { for (const bytes of [a, b]) bytes.fill(0, HEADER_BYTES + 4); }
  return recorded.fds === got.fds && a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** An answer in words. */
function shown(request: string, message: RecordedMessage): string {
  const { id, reply } = headerOf(message);
  const payload = message.bytes.subarray(HEADER_BYTES);
  const isOther = frontendMessages.nameOf(id) !== request && request !== `request ${id}`;
  const words = [
    ...isOther ? [`an answer to ${frontendMessages.nameOf(id) ?? id}`] : [],
    ...reply ? [] : ["a request"],
    payloadText(request, payload),
    ...message.fds > 0 ? [`descriptors: ${message.fds}`] : [],
  ];
  return words.join(", ");
}

function payloadText(request: string, payload: Uint8Array): string {
  if (payload.length === 0) return "an empty payload";
  const rule: RequestRule | undefined = frontendRequests[request as keyof typeof frontendRequests];
  try {
    const value = decodePayload(rule?.reply ?? "u64", payload);
    const fields = Object.entries(value).map(([name, field]) => `${name}=${fieldText(field)}`);
    return [...fields, ...bitNames(request, value)].join(" ");
  } catch (error) {
    if (error instanceof ProtocolError) return payload.toHex();
    throw error;
  }
}

function fieldText(field: unknown): string {
  if (typeof field === "bigint") return `0x${field.toString(16)}`;
  return field instanceof Uint8Array ? field.toHex() : String(field);
}

/** The names of the bits of features, in brackets. */
function bitNames(request: string, value: object): string[] {
  const { value: bits = 0n } = value as { value?: bigint };
  if (request === "GET_PROTOCOL_FEATURES") return [`(${protocolFeatureNames(bits).join(" ")})`];
  if (request !== "GET_FEATURES") return [];
  return [`(${nameFeatures(bits).map(({ name }) => name).join(" ")})`];
}
