import { ProtocolError } from "./errors.ts";
import { decodePayload, encodePayload, type PayloadKind, type PayloadValues } from "./payloads.ts";
import { protocolFeatureMask } from "./protocol_features.ts";
import {
  type BackendRequest,
  backendRequestName,
  backendRequests,
  type FdRule,
  type FrontendRequest,
  frontendRequestName,
  frontendRequests,
  type RequestRule,
} from "./requests.ts";
import { u32, viewOf } from "./wire.ts";

/** Size of the header in front of every message. */
export const HEADER_BYTES = 12;

/**
 * The largest payload that is read. The largest of all requests has 1072 bytes
 * (CREATE_CRYPTO_SESSION); the rest is room for requests that this codec does
 * not know, so that they can be read past and refused one by one.
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

function encodeMessage(
  id: number,
  flags: number,
  payload: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = viewOf(bytes);
  u32.set(view, 0, id);
  u32.set(view, 4, VERSION | flags);
  u32.set(view, 8, payload.length);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** A table of requests by name. */
export type RequestTable = Record<string, RequestRule>;

/** A union member per request: its name and the fields of its payload. */
export type MessageOf<Table extends RequestTable> = {
  [R in keyof Table]:
    & { request: R }
    & PayloadValues[Table[R]["payload"]];
}[keyof Table];

/** The payload of a request's own reply, also of the one in postcopy mode. */
export type ReplyOf<Rule> = Rule extends { reply: infer K extends PayloadKind } ? PayloadValues[K]
  : Rule extends { postcopyReply: infer K extends PayloadKind } ? PayloadValues[K]
  : never;

/** The requests that have a reply of their own. */
export type ReplyingRequest<Table extends RequestTable> = {
  [R in keyof Table]: ReplyOf<Table[R]> extends never ? never : R;
}[keyof Table];

/**
 * A request of the front-end: its name in `request`, and the fields of its
 * payload. Its file descriptors travel beside it and stay the receiver's.
 */
export type FrontendMessage = MessageOf<typeof frontendRequests>;

/** A front-end's request that has a reply of its own, also in postcopy mode. */
export type FrontendReplyRequest = ReplyingRequest<typeof frontendRequests>;

/** The body of the reply to a front-end's request. */
export type FrontendReply<R extends FrontendReplyRequest> = ReplyOf<
  typeof frontendRequests[R]
>;

/**
 * A request of the back-end on its own channel: its name in `request`, and the
 * fields of its payload.
 */
export type BackendMessage = MessageOf<typeof backendRequests>;

/** A back-end's request that has a reply of its own. */
export type BackendReplyRequest = ReplyingRequest<typeof backendRequests>;

/** The body of the reply to a back-end's request. */
export type BackendReply<R extends BackendReplyRequest> = ReplyOf<
  typeof backendRequests[R]
>;

/** What a message says beyond its request and payload. */
export interface MessageOptions {
  /**
   * Ask for an acknowledgement. Only with REPLY_ACK.
   *
   * @default {false}
   */
  needReply?: boolean;
}

function checkPayloadIsWhole(
  header: Header,
  payload: Uint8Array,
  name: string,
): void {
  if (payload.length === header.size) return;
  throw new ProtocolError(
    "stream",
    `Expected ${header.size} payload bytes as the header says, got ${payload.length}`,
    name,
  );
}

/** The number of fds that a rule wants with this payload, as a range. */
function fdRange(rule: FdRule, body: object): readonly [number, number] {
  switch (rule) {
    case "none":
      return [0, 0];
    case "one":
      return [1, 1];
    case "optional":
      return [0, 1];
    case "perRegion": {
      const { length } = (body as PayloadValues["memory"]).regions;
      return [length, length];
    }
    case "unlessNoFd":
      return (body as PayloadValues["vringFd"]).noFd ? [0, 0] : [1, 1];
    case "ifMapped":
      return (body as PayloadValues["inflight"]).mmapSize === 0n ? [0, 0] : [1, 1];
  }
}

function checkFds(
  rule: FdRule,
  body: object,
  fdCount: number,
  name: string,
): void {
  const [least, most] = fdRange(rule, body);
  if (fdCount >= least && fdCount <= most) return;
  const wanted = least === most ? `${most}` : `${least} or ${most}`;
  throw new ProtocolError(
    "message",
    `Expected ${wanted} file descriptors, got ${fdCount}`,
    name,
  );
}

function decodeMessage(
  name: string | undefined,
  rule: RequestRule | undefined,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): object {
  const label = name ?? `Request ${header.id}`;
  checkPayloadIsWhole(header, payload, label);
  if (name === undefined || rule === undefined) {
    throw new ProtocolError("message", `Unknown request ${header.id}`);
  }
  if (header.reply) {
    throw new ProtocolError("message", "Expected a request, got a reply", name);
  }
  const body: object = decodePayload(rule.payload, payload, name);
  if (rule.maxNum !== undefined) {
    const { num } = body as PayloadValues["vringState"];
    if (num > rule.maxNum) {
      throw new ProtocolError(
        "message",
        `Expected num to be at most ${rule.maxNum}, got ${num}`,
        name,
      );
    }
  }
  checkFds(rule.fds, body, fdCount, name);
  return { request: name, ...body };
}

/** Checks that a reply is the answer to this request. */
function checkReplyHeader(
  name: string,
  rule: RequestRule,
  header: Header,
  payload: Uint8Array,
): void {
  checkPayloadIsWhole(header, payload, name);
  if (!header.reply) {
    throw new ProtocolError("stream", "Expected a reply, got a request", name);
  }
  if (header.id !== rule.id) {
    throw new ProtocolError(
      "stream",
      `Expected the reply to request ${rule.id}, got one to ${header.id}`,
      name,
    );
  }
}

function replyKind(name: string, rule: RequestRule): PayloadKind {
  const kind = rule.reply === "none" ? rule.postcopyReply : rule.reply;
  if (kind === undefined) {
    throw new RangeError(
      `Expected a request with a reply of its own, got ${name}`,
    );
  }
  return kind;
}

function decodeReplyBody(
  name: string,
  rule: RequestRule,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): object {
  const kind = replyKind(name, rule);
  checkReplyHeader(name, rule, header, payload);
  const body: object = decodePayload(kind, payload, name);
  checkFds(rule.replyFds ?? "none", body, fdCount, name);
  return body;
}

function decodeAckValue(
  name: string,
  rule: RequestRule,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): bigint {
  checkReplyHeader(name, rule, header, payload);
  const { value } = decodePayload("u64", payload, name);
  checkFds("none", {}, fdCount, name);
  return value;
}

/**
 * Decodes a request of the front-end, and checks everything that the protocol
 * says about its size, its reserved bits and its file descriptors.
 *
 * The fds stay the caller's: also when this throws, it has to close them. What
 * is returned is independent of `payload`, which may be used again.
 *
 * @param header The header, from {@linkcode decodeHeader}
 * @param payload The `header.size` bytes that followed
 * @param fdCount How many file descriptors came with the message
 * @returns The message, its name in `request`
 * @throws {ProtocolError} With scope "message" if the message is wrong, and
 * with scope "stream" if `payload` is not whole
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeFrontendMessage, decodeHeader, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = new Uint8Array([12, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
 * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
 * const message = decodeFrontendMessage(header, bytes.subarray(HEADER_BYTES), 1);
 * assertEquals(message, { request: "SET_VRING_KICK", index: 3, noFd: false });
 * ```
 */
export function decodeFrontendMessage(
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): FrontendMessage {
  const name = frontendRequestName(header.id);
  const rule = name && frontendRequests[name];
  return decodeMessage(name, rule, header, payload, fdCount) as FrontendMessage;
}

/**
 * Encodes a request of the front-end, header and payload. The fds that belong
 * to it are for the caller to send along.
 *
 * @param message The message
 * @param options Whether an acknowledgement is wanted
 * @returns A new array of bytes, the caller's own
 * @throws {RangeError} If a value does not fit its field
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeFrontendMessage } from "./mod.ts";
 *
 * const bytes = encodeFrontendMessage({ request: "SET_OWNER" }, { needReply: true });
 * assertEquals([...bytes], [3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export function encodeFrontendMessage(
  message: FrontendMessage,
  options: MessageOptions = {},
): Uint8Array {
  const { id, payload } = frontendRequests[message.request];
  return encodeRequest(id, payload, message, options);
}

function encodeRequest(
  id: number,
  kind: PayloadKind,
  message: object,
  { needReply = false }: MessageOptions,
): Uint8Array {
  return encodeMessage(
    id,
    needReply ? NEED_REPLY : 0,
    encodePayload(kind, message as PayloadValues[typeof kind]),
  );
}

/**
 * Encodes the reply that a front-end's request has of its own. For
 * SET_MEM_TABLE and ADD_MEM_REG that is the one of postcopy mode. For
 * SET_LOG_BASE it is sent only with LOG_SHMFD.
 *
 * @param request The request that is answered
 * @param body The reply's payload
 * @returns A new array of bytes, the caller's own
 * @throws {RangeError} If a value does not fit its field
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeReply } from "./mod.ts";
 *
 * const bytes = encodeReply("GET_QUEUE_NUM", { value: 2n });
 * assertEquals([...bytes], [17, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export function encodeReply<R extends FrontendReplyRequest>(
  request: R,
  body: FrontendReply<R>,
): Uint8Array {
  return encodeReplyBody(request, frontendRequests[request], body);
}

function encodeReplyBody(
  name: string,
  rule: RequestRule,
  body: object,
): Uint8Array {
  const kind = replyKind(name, rule);
  const payload = encodePayload(kind, body as PayloadValues[typeof kind]);
  return encodeMessage(rule.id, REPLY, payload);
}

/**
 * Encodes the answer to a front-end's request that failed, if one can be given:
 * what the protocol has for that, or a reply without a payload where the
 * request has a reply that could be taken for a value, or the acknowledgement
 * that was asked for.
 *
 * @param header The request's header; its request need not be known
 * @param protocolFeatures The protocol features in force
 * @returns The answer, or undefined where the front-end does not wait for one
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeFailure, frontendRequests } from "./mod.ts";
 *
 * const header = { version: 1, reply: false, needReply: false, size: 0 };
 * const { GET_VRING_BASE, SET_OWNER } = frontendRequests;
 * const reply = encodeFailure({ ...header, id: GET_VRING_BASE.id }, 0n);
 * assertEquals([...reply!], [11, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
 * assertEquals(encodeFailure({ ...header, id: SET_OWNER.id }, 0n), undefined);
 * ```
 */
export function encodeFailure(header: Header, protocolFeatures: bigint): Uint8Array | undefined {
  if (header.reply) return undefined;
  const name = frontendRequestName(header.id);
  const rule: RequestRule | undefined = name && frontendRequests[name];
  const hasReply = rule !== undefined && rule.reply !== "none" &&
    (rule.replyRequires === undefined ||
      (protocolFeatures & protocolFeatureMask(rule.replyRequires)) !== 0n);
  if (!hasReply) return header.needReply ? encodeAck(header.id, 1n) : undefined;
  return rule.failure === undefined
    ? encodeMessage(header.id, REPLY, new Uint8Array())
    : encodeReplyBody(name!, rule, rule.failure);
}

/**
 * Decodes the reply that a front-end's request has of its own.
 *
 * The fds stay the caller's: also when this throws, it has to close them.
 *
 * @param request The request that was sent
 * @param header The reply's header
 * @param payload The `header.size` bytes that followed
 * @param fdCount How many file descriptors came with the reply
 * @returns The reply's payload
 * @throws {ProtocolError} With scope "stream" if it is not the reply to this
 * request, and with scope "message" if its content is wrong
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeHeader, decodeReply, encodeReply, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = encodeReply("GET_FEATURES", { value: 1n << 32n });
 * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
 * const { value } = decodeReply("GET_FEATURES", header, bytes.subarray(HEADER_BYTES), 0);
 * assertEquals(value, 1n << 32n);
 * ```
 */
export function decodeReply<R extends FrontendReplyRequest>(
  request: R,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): FrontendReply<R> {
  const rule = frontendRequests[request];
  return decodeReplyBody(request, rule, header, payload, fdCount) as FrontendReply<R>;
}

/**
 * Encodes the acknowledgement of a front-end's request: 0 for success, anything
 * else for failure. It is sent where the header says `needReply` and REPLY_ACK
 * is negotiated, unless the request has a reply of its own.
 *
 * @param request The request, or its number where it is not known
 * @param value 0n for success
 * @returns A new array of bytes, the caller's own
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeAck } from "./mod.ts";
 *
 * const bytes = encodeAck("SET_VRING_NUM", 1n);
 * assertEquals([...bytes], [8, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export function encodeAck(
  request: FrontendRequest | number,
  value: bigint,
): Uint8Array {
  const id = typeof request === "number" ? request : frontendRequests[request].id;
  return encodeMessage(id, REPLY, encodePayload("u64", { value }));
}

/**
 * Decodes the acknowledgement of a front-end's request.
 *
 * @param request The request that was sent
 * @param header The reply's header
 * @param payload The `header.size` bytes that followed
 * @param fdCount How many file descriptors came with it
 * @returns 0n for success
 * @throws {ProtocolError} With scope "stream" if it is not the reply to this
 * request, and with scope "message" if its content is wrong
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeAck, decodeHeader, encodeAck, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = encodeAck("SET_OWNER", 0n);
 * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
 * assertEquals(decodeAck("SET_OWNER", header, bytes.subarray(HEADER_BYTES), 0), 0n);
 * ```
 */
export function decodeAck(
  request: FrontendRequest,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): bigint {
  const rule = frontendRequests[request];
  return decodeAckValue(request, rule, header, payload, fdCount);
}

/**
 * Decodes a request of the back-end on its own channel.
 *
 * The fds stay the caller's: also when this throws, it has to close them.
 *
 * @param header The header, from {@linkcode decodeHeader}
 * @param payload The `header.size` bytes that followed
 * @param fdCount How many file descriptors came with the message
 * @returns The message, its name in `request`
 * @throws {ProtocolError} With scope "message" if the message is wrong, and
 * with scope "stream" if `payload` is not whole
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeBackendMessage, decodeHeader } from "./mod.ts";
 *
 * const header = decodeHeader(new Uint8Array([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
 * const message = decodeBackendMessage(header, new Uint8Array(), 0);
 * assertEquals(message, { request: "CONFIG_CHANGE_MSG" });
 * ```
 */
export function decodeBackendMessage(
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): BackendMessage {
  const name = backendRequestName(header.id);
  const rule = name && backendRequests[name];
  return decodeMessage(name, rule, header, payload, fdCount) as BackendMessage;
}

/**
 * Encodes a request of the back-end, header and payload.
 *
 * @param message The message
 * @param options Whether an acknowledgement is wanted
 * @returns A new array of bytes, the caller's own
 * @throws {RangeError} If a value does not fit its field
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeBackendMessage } from "./mod.ts";
 *
 * const bytes = encodeBackendMessage({ request: "CONFIG_CHANGE_MSG" });
 * assertEquals([...bytes], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export function encodeBackendMessage(
  message: BackendMessage,
  options: MessageOptions = {},
): Uint8Array {
  const { id, payload } = backendRequests[message.request];
  return encodeRequest(id, payload, message, options);
}

/**
 * Encodes the reply that a back-end's request has of its own.
 *
 * @param request The request that is answered
 * @param body The reply's payload
 * @returns A new array of bytes, the caller's own
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeBackendReply, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = encodeBackendReply("SHARED_OBJECT_LOOKUP", { value: 0n });
 * assertEquals(bytes.length, HEADER_BYTES + 8);
 * ```
 */
export function encodeBackendReply<R extends BackendReplyRequest>(
  request: R,
  body: BackendReply<R>,
): Uint8Array {
  return encodeReplyBody(request, backendRequests[request], body);
}

/**
 * Decodes the reply that a back-end's request has of its own.
 *
 * The fds stay the caller's: also when this throws, it has to close them.
 *
 * @param request The request that was sent
 * @param header The reply's header
 * @param payload The `header.size` bytes that followed
 * @param fdCount How many file descriptors came with the reply
 * @returns The reply's payload
 * @throws {ProtocolError} With scope "stream" if it is not the reply to this
 * request, and with scope "message" if its content is wrong
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeBackendReply, decodeHeader, encodeBackendReply, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = encodeBackendReply("SHARED_OBJECT_LOOKUP", { value: 0n });
 * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
 * const payload = bytes.subarray(HEADER_BYTES);
 * assertEquals(decodeBackendReply("SHARED_OBJECT_LOOKUP", header, payload, 1), { value: 0n });
 * ```
 */
export function decodeBackendReply<R extends BackendReplyRequest>(
  request: R,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): BackendReply<R> {
  const rule = backendRequests[request];
  return decodeReplyBody(request, rule, header, payload, fdCount) as BackendReply<R>;
}

/**
 * Encodes the front-end's acknowledgement of a back-end's request.
 *
 * @param request The request, or its number where it is not known
 * @param value 0n for success
 * @returns A new array of bytes, the caller's own
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodeBackendAck } from "./mod.ts";
 *
 * const bytes = encodeBackendAck("CONFIG_CHANGE_MSG", 0n);
 * assertEquals([...bytes], [2, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export function encodeBackendAck(
  request: BackendRequest | number,
  value: bigint,
): Uint8Array {
  const id = typeof request === "number" ? request : backendRequests[request].id;
  return encodeMessage(id, REPLY, encodePayload("u64", { value }));
}

/**
 * Decodes the front-end's acknowledgement of a back-end's request.
 *
 * @param request The request that was sent
 * @param header The reply's header
 * @param payload The `header.size` bytes that followed
 * @param fdCount How many file descriptors came with it
 * @returns 0n for success
 * @throws {ProtocolError} With scope "stream" if it is not the reply to this
 * request, and with scope "message" if its content is wrong
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodeBackendAck, decodeHeader, encodeBackendAck, HEADER_BYTES } from "./mod.ts";
 *
 * const bytes = encodeBackendAck("SHMEM_MAP", 1n);
 * const header = decodeHeader(bytes.subarray(0, HEADER_BYTES));
 * assertEquals(decodeBackendAck("SHMEM_MAP", header, bytes.subarray(HEADER_BYTES), 0), 1n);
 * ```
 */
export function decodeBackendAck(
  request: BackendRequest,
  header: Header,
  payload: Uint8Array,
  fdCount: number,
): bigint {
  const rule = backendRequests[request];
  return decodeAckValue(request, rule, header, payload, fdCount);
}
