import { ProtocolError } from "./errors.ts";
import { encodeMessage, type Header } from "./header.ts";
import type { PayloadKind, PayloadValues } from "./payload_values.ts";
import { decodePayload, encodePayload } from "./payloads.ts";
import { hasProtocolFeature } from "./protocol_features.ts";
import {
  backendRequests,
  type FdRule,
  type FrontendRequest,
  frontendRequests,
  MAX_FDS,
  type RequestRule,
  type RequestTable,
} from "./requests.ts";

/** One request of a table: its name in `request`, and the fields of its payload. */
export type MessageNamed<Table extends RequestTable, R extends keyof Table> =
  & { request: R }
  & PayloadValues[Table[R]["payload"]];

/** Any request of a table. */
export type MessageOf<Table extends RequestTable> = {
  [R in keyof Table]: MessageNamed<Table, R>;
}[keyof Table];

/** The payload of a request's own reply; `never` where it has none. */
export type ReplyOf<Rule> = Rule extends { reply: infer K extends PayloadKind } ? PayloadValues[K]
  : never;

/** The requests of a table that have a reply of their own. */
export type ReplyingRequest<Table extends RequestTable> = {
  [R in keyof Table]: ReplyOf<Table[R]> extends never ? never : R;
}[keyof Table];

/** A request of the front-end. Its file descriptors travel beside it and stay the receiver's. */
export type FrontendMessage = MessageOf<typeof frontendRequests>;

/** One request of the front-end, by name. */
export type FrontendMessageNamed<R extends FrontendRequest> = MessageNamed<
  typeof frontendRequests,
  R
>;

/** A front-end's request that has a reply of its own. */
export type FrontendReplyRequest = ReplyingRequest<typeof frontendRequests>;

/** The body of the reply to a front-end's request. */
export type FrontendReply<R extends FrontendRequest> = ReplyOf<typeof frontendRequests[R]>;

/** A request of the back-end on its own channel. */
export type BackendMessage = MessageOf<typeof backendRequests>;

/** What a message says beyond its request and payload. */
export interface MessageOptions {
  /**
   * Ask for an acknowledgement. Only with REPLY_ACK.
   *
   * @default {false}
   */
  needReply?: boolean;
}

/**
 * Encodes and decodes the messages of one table of requests: see {@linkcode frontendMessages} and
 * {@linkcode backendMessages}.
 *
 * What is encoded is a new array of bytes, the caller's own; a value that does not fit its field is
 * a `RangeError`. What is decoded is independent of the bytes, which may be used again. File
 * descriptors are only counted: they stay the caller's, which closes them also when a method
 * throws.
 */
export class MessageCodec<Table extends RequestTable> {
  readonly #table: Table;
  readonly #names: ReadonlyMap<number, keyof Table & string>;

  /** A codec for the requests of a table. */
  constructor(table: Table) {
    this.#table = table;
    this.#names = new Map(Object.entries(table).map(([name, { id }]) => [id, name]));
  }

  /**
   * The name of a request, or undefined where the number is not known.
   *
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { frontendMessages } from "./mod.ts";
   *
   * assertEquals(frontendMessages.nameOf(8), "SET_VRING_NUM");
   * assertEquals(frontendMessages.nameOf(999), undefined);
   * ```
   */
  nameOf(id: number): (keyof Table & string) | undefined {
    return this.#names.get(id);
  }

  #rule(id: number): RequestRule | undefined {
    const name = this.#names.get(id);
    return name && this.#table[name];
  }

  /**
   * The most file descriptors that a request can have; 0 where the number is not known.
   *
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { frontendMessages } from "./mod.ts";
   *
   * assertEquals([5, 12, 1, 999].map((id) => frontendMessages.mostFds(id)), [8, 1, 0, 0]);
   * ```
   */
  mostFds(id: number): number {
    const { fds = "none" } = this.#rule(id) ?? {};
    if (fds === "none") return 0;
    return fds === "perRegion" ? MAX_FDS : 1;
  }

  /** Whether a request has a reply of its own with the protocol features in force. */
  hasReply(id: number, protocolFeatures: bigint): boolean {
    const { reply, replyRequires } = this.#rule(id) ?? {};
    return reply !== undefined &&
      (replyRequires === undefined || hasProtocolFeature(protocolFeatures, replyRequires));
  }

  /**
   * Encodes a request, header and payload. Its file descriptors are for the caller to send along.
   *
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { frontendMessages } from "./mod.ts";
   *
   * const bytes = frontendMessages.encode({ request: "SET_OWNER" }, { needReply: true });
   * assertEquals([...bytes], [3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
   * ```
   */
  encode(message: MessageOf<Table>, options: MessageOptions = {}): Uint8Array {
    const { id, payload } = this.#table[message.request];
    return encodeMessage(id, options, encodePayload(payload, message as never));
  }

  /**
   * Decodes a request, and checks everything that the protocol says about its size, its reserved
   * bits and its file descriptors.
   *
   * @param header The header, from {@linkcode decodeHeader}
   * @param payload The `header.size` bytes that followed
   * @param fdCount How many file descriptors came with the message
   * @throws {ProtocolError} With scope "message" if the message is wrong, and with scope "stream"
   * if `payload` is not whole
   *
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { decodeHeader, frontendMessages, HEADER_BYTES } from "./mod.ts";
   *
   * const bytes = new Uint8Array([12, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
   * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
   * const message = frontendMessages.decode(header, bytes.subarray(HEADER_BYTES), 1);
   * assertEquals(message, { request: "SET_VRING_KICK", index: 3, noFd: false });
   * ```
   */
  decode(header: Header, payload: Uint8Array, fdCount: number): MessageOf<Table> {
    const request = this.nameOf(header.id);
    expectWhole(header, payload, request ?? `Request ${header.id}`);
    if (request === undefined) {
      throw new ProtocolError("message", `Unknown request ${header.id}`);
    }
    if (header.reply) {
      throw new ProtocolError("message", "Expected a request, got a reply", request);
    }
    const rule: RequestRule = this.#table[request];
    const body: object = decodePayload(rule.payload, payload, request);
    const { num } = body as PayloadValues["vringState"];
    if (rule.maxNum !== undefined && num > rule.maxNum) {
      throw new ProtocolError(
        "message",
        `Expected num to be at most ${rule.maxNum}, got ${num}`,
        request,
      );
    }
    expectFds(rule.fds, body, fdCount, request);
    return { request, ...body } as MessageOf<Table>;
  }

  /**
   * Encodes the reply that a request has of its own. For SET_LOG_BASE it is sent only with
   * LOG_SHMFD.
   *
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { frontendMessages } from "./mod.ts";
   *
   * const bytes = frontendMessages.encodeReply("GET_QUEUE_NUM", { value: 2n });
   * assertEquals([...bytes], [17, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
   * ```
   */
  encodeReply<R extends ReplyingRequest<Table>>(request: R, body: ReplyOf<Table[R]>): Uint8Array {
    const { id } = this.#table[request];
    return encodeMessage(id, { reply: true }, encodePayload(this.#replyKind(request), body));
  }

  /**
   * Decodes the reply that a request has of its own.
   *
   * @param request The request that was sent
   * @param header The reply's header
   * @param payload The `header.size` bytes that followed
   * @param fdCount How many file descriptors came with the reply
   * @throws {ProtocolError} With scope "stream" if it is not the reply to this request, and with
   * scope "message" if its content is wrong
   */
  decodeReply<R extends ReplyingRequest<Table>>(
    request: R,
    header: Header,
    payload: Uint8Array,
    fdCount: number,
  ): ReplyOf<Table[R]> {
    const kind = this.#replyKind(request);
    return this.#decodeAnswer(
      request,
      kind,
      this.#table[request].replyFds,
      header,
      payload,
      fdCount,
    ) as ReplyOf<Table[R]>;
  }

  /**
   * Encodes the acknowledgement of a request. It is sent where the header says `needReply` and
   * REPLY_ACK is negotiated, unless the request has a reply of its own.
   *
   * @param request The request, or its number where it is not known
   * @param value 0n for success
   */
  encodeAck(request: keyof Table | number, value: bigint): Uint8Array {
    const id = typeof request === "number" ? request : this.#table[request].id;
    return encodeMessage(id, { reply: true }, encodePayload("u64", { value }));
  }

  /**
   * Decodes the acknowledgement of a request; takes what {@linkcode MessageCodec.decodeReply}
   * takes.
   *
   * @returns 0n for success
   * @throws {ProtocolError} As {@linkcode MessageCodec.decodeReply}
   */
  decodeAck(request: keyof Table, header: Header, payload: Uint8Array, fdCount: number): bigint {
    return this.#decodeAnswer(request, "u64", "none", header, payload, fdCount).value;
  }

  /**
   * Encodes the answer to a request that failed: what the protocol has for that, or a reply without
   * a payload where the request has a reply that could be taken for a value, or the acknowledgement
   * that was asked for.
   *
   * @param header The request's header; its request need not be known
   * @param protocolFeatures The protocol features in force
   * @returns The answer, or undefined where the front-end does not wait for one
   *
   * @example
   * ```ts
   * import { assertEquals } from "@std/assert";
   * import { frontendMessages, frontendRequests } from "./mod.ts";
   *
   * const header = { version: 1, reply: false, needReply: false, size: 0 };
   * const { GET_VRING_BASE, SET_OWNER } = frontendRequests;
   * const reply = frontendMessages.encodeFailure({ ...header, id: GET_VRING_BASE.id }, 0n);
   * assertEquals([...reply!], [11, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
   * assertEquals(frontendMessages.encodeFailure({ ...header, id: SET_OWNER.id }, 0n), undefined);
   * ```
   */
  encodeFailure(header: Header, protocolFeatures: bigint): Uint8Array | undefined {
    if (header.reply) return undefined;
    if (!this.hasReply(header.id, protocolFeatures)) {
      return header.needReply ? this.encodeAck(header.id, 1n) : undefined;
    }
    const { reply, failure } = this.#rule(header.id)!;
    const payload = failure === undefined
      ? new Uint8Array()
      : encodePayload(reply!, failure as never);
    return encodeMessage(header.id, { reply: true }, payload);
  }

  #replyKind(request: keyof Table): PayloadKind {
    const { reply } = this.#table[request];
    if (reply !== undefined) return reply;
    throw new RangeError(`Expected a request with a reply of its own, got ${String(request)}`);
  }

  #decodeAnswer<K extends PayloadKind>(
    request: keyof Table,
    kind: K,
    fds: FdRule | undefined,
    header: Header,
    payload: Uint8Array,
    fdCount: number,
  ): PayloadValues[K] {
    const name = String(request);
    const { id } = this.#table[request];
    expectWhole(header, payload, name);
    if (!header.reply) {
      throw new ProtocolError("stream", "Expected a reply, got a request", name);
    }
    if (header.id !== id) {
      throw new ProtocolError(
        "stream",
        `Expected the reply to request ${id}, got one to ${header.id}`,
        name,
      );
    }
    const body = decodePayload(kind, payload, name);
    expectFds(fds, body, fdCount, name);
    return body;
  }
}

function expectWhole(header: Header, payload: Uint8Array, name: string): void {
  if (payload.length === header.size) return;
  throw new ProtocolError(
    "stream",
    `Expected ${header.size} payload bytes as the header says, got ${payload.length}`,
    name,
  );
}

/** The number of fds that a rule wants with this payload, as a range. */
function fdRange(rule: FdRule, body: object): readonly [number, number] {
  const exactly = (count: number) => [count, count] as const;
  switch (rule) {
    case "none":
      return exactly(0);
    case "one":
      return exactly(1);
    case "optional":
      return [0, 1];
    case "perRegion":
      return exactly((body as PayloadValues["memory"]).regions.length);
    case "unlessNoFd":
      return exactly((body as PayloadValues["vringFd"]).noFd ? 0 : 1);
    case "ifMapped":
      return exactly((body as PayloadValues["inflight"]).mmapSize === 0n ? 0 : 1);
  }
}

function expectFds(rule: FdRule = "none", body: object, fdCount: number, name: string): void {
  const [least, most] = fdRange(rule, body);
  if (fdCount >= least && fdCount <= most) return;
  const wanted = least === most ? `${most}` : `${least} or ${most}`;
  throw new ProtocolError(
    "message",
    `Expected ${wanted} file descriptors, got ${fdCount}`,
    name,
  );
}

/**
 * The front-end's messages.
 *
 * @example A request and its reply
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeHeader, frontendMessages, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = frontendMessages.encodeReply("GET_FEATURES", { value: 1n << 32n });
 * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
 * const payload = bytes.subarray(HEADER_BYTES);
 * const { value } = frontendMessages.decodeReply("GET_FEATURES", header, payload, 0);
 * assertEquals(value, 1n << 32n);
 * ```
 */
export const frontendMessages: MessageCodec<typeof frontendRequests> = new MessageCodec(
  frontendRequests,
);

/**
 * The back-end's messages on its own channel.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { backendMessages } from "./mod.ts";
 *
 * const bytes = backendMessages.encode({ request: "CONFIG_CHANGE_MSG" });
 * assertEquals([...bytes], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export const backendMessages: MessageCodec<typeof backendRequests> = new MessageCodec(
  backendRequests,
);
