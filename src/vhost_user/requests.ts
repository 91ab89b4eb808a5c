import type { PayloadKind } from "./payloads.ts";
import type { ProtocolFeature } from "./protocol_features.ts";

/** File descriptors that one message can carry: QEMU docs/interop/vhost-user.rst. */
export const MAX_FDS = 8;

/**
 * How many file descriptors come with a message, in its ancillary data.
 *
 * - `"none"` and `"one"`: exactly so many
 * - `"optional"`: one or none
 * - `"perRegion"`: one for each memory region, in their order
 * - `"unlessNoFd"`: one, or none where the payload says `noFd`
 * - `"ifMapped"`: one, or none where the payload's `mmapSize` is 0
 */
export type FdRule =
  | "none"
  | "one"
  | "optional"
  | "perRegion"
  | "unlessNoFd"
  | "ifMapped";

/** What the protocol says about one request. */
export interface RequestRule {
  /** The number on the wire. */
  readonly id: number;
  /** The request's payload. */
  readonly payload: PayloadKind;
  /**
   * The payload of the reply that the request has of its own. With `"none"` it
   * has only the acknowledgement of REPLY_ACK, when the sender asks for it.
   */
  readonly reply: PayloadKind | "none";
  /** File descriptors that come with the request. */
  readonly fds: FdRule;
  /**
   * File descriptors that come with the reply.
   *
   * @default {"none"}
   */
  readonly replyFds?: FdRule;
  /** The protocol feature without which the request must not be sent. */
  readonly requires?: ProtocolFeature;
  /** The protocol feature without which there is no reply. */
  readonly replyRequires?: ProtocolFeature;
  /**
   * The fields of the reply that says that the request failed, where the
   * protocol has one. Else that is a reply without a payload, as GET_CONFIG has
   * it: no value can be read from it.
   */
  readonly failure?: object;
  /** The payload of the reply that is sent only between POSTCOPY_LISTEN and POSTCOPY_END. */
  readonly postcopyReply?: PayloadKind;
  /** The largest legal `num` of a `vringState`, where the protocol limits it. */
  readonly maxNum?: number;
}

/**
 * Every request of the front-end, by name without the prefix `VHOST_USER_`.
 *
 * Source: QEMU 10.0 docs/interop/vhost-user.rst, "Front-end message types",
 * with sizes and file descriptors from hw/virtio/vhost-user.c where the two
 * differ. {@linkcode RequestRule} explains the columns.
 */
export const frontendRequests = {
  GET_FEATURES: { id: 1, payload: "empty", reply: "u64", fds: "none" },
  SET_FEATURES: { id: 2, payload: "u64", reply: "none", fds: "none" },
  SET_OWNER: { id: 3, payload: "empty", reply: "none", fds: "none" },
  RESET_OWNER: { id: 4, payload: "empty", reply: "none", fds: "none" },
  SET_MEM_TABLE: {
    id: 5,
    payload: "memory",
    reply: "none",
    fds: "perRegion",
    // QEMU answers that reply with this request again: 8 zero bytes, which
    // read as a table without regions.
    postcopyReply: "memory",
  },
  SET_LOG_BASE: {
    id: 6,
    payload: "log",
    reply: "optionalU64",
    // Without LOG_SHMFD, QEMU sends the same 16 bytes and no fd.
    fds: "optional",
    replyRequires: "LOG_SHMFD",
  },
  SET_LOG_FD: { id: 7, payload: "empty", reply: "none", fds: "one" },
  SET_VRING_NUM: { id: 8, payload: "vringState", reply: "none", fds: "none" },
  SET_VRING_ADDR: {
    id: 9,
    payload: "vringAddress",
    reply: "none",
    fds: "none",
  },
  SET_VRING_BASE: { id: 10, payload: "vringState", reply: "none", fds: "none" },
  // `num` is reserved here, but front-ends that leave it uninitialised would
  // hang on a refused stop: it is not checked.
  GET_VRING_BASE: {
    id: 11,
    payload: "vringState",
    reply: "vringState",
    fds: "none",
  },
  SET_VRING_KICK: {
    id: 12,
    payload: "vringFd",
    reply: "none",
    fds: "unlessNoFd",
  },
  SET_VRING_CALL: {
    id: 13,
    payload: "vringFd",
    reply: "none",
    fds: "unlessNoFd",
  },
  SET_VRING_ERR: {
    id: 14,
    payload: "vringFd",
    reply: "none",
    fds: "unlessNoFd",
  },
  GET_PROTOCOL_FEATURES: {
    id: 15,
    payload: "empty",
    reply: "u64",
    fds: "none",
  },
  SET_PROTOCOL_FEATURES: { id: 16, payload: "u64", reply: "none", fds: "none" },
  GET_QUEUE_NUM: {
    id: 17,
    payload: "empty",
    reply: "u64",
    fds: "none",
    requires: "MQ",
  },
  SET_VRING_ENABLE: {
    id: 18,
    payload: "vringState",
    reply: "none",
    fds: "none",
    maxNum: 1,
  },
  SEND_RARP: {
    id: 19,
    payload: "u64",
    reply: "none",
    fds: "none",
    requires: "RARP",
  },
  NET_SET_MTU: {
    id: 20,
    payload: "u64",
    reply: "none",
    fds: "none",
    requires: "NET_MTU",
  },
  SET_BACKEND_REQ_FD: {
    id: 21,
    payload: "empty",
    reply: "none",
    fds: "one",
    requires: "BACKEND_REQ",
  },
  IOTLB_MSG: { id: 22, payload: "iotlb", reply: "u64", failure: { value: 1n }, fds: "none" },
  SET_VRING_ENDIAN: {
    id: 23,
    payload: "vringState",
    reply: "none",
    fds: "none",
    requires: "CROSS_ENDIAN",
    maxNum: 1,
  },
  GET_CONFIG: {
    id: 24,
    payload: "config",
    reply: "configReply",
    fds: "none",
    requires: "CONFIG",
  },
  SET_CONFIG: {
    id: 25,
    payload: "config",
    reply: "none",
    fds: "none",
    requires: "CONFIG",
  },
  CREATE_CRYPTO_SESSION: {
    id: 26,
    payload: "cryptoSession",
    reply: "cryptoSessionReply",
    fds: "none",
    failure: { sessionId: -1n },
    requires: "CRYPTO_SESSION",
  },
  CLOSE_CRYPTO_SESSION: {
    id: 27,
    payload: "u64",
    reply: "none",
    fds: "none",
    requires: "CRYPTO_SESSION",
  },
  POSTCOPY_ADVISE: {
    id: 28,
    payload: "empty",
    reply: "empty",
    fds: "none",
    // The userfault fd; a back-end that could not open one sends none.
    replyFds: "optional",
    requires: "PAGEFAULT",
  },
  POSTCOPY_LISTEN: {
    id: 29,
    payload: "empty",
    reply: "none",
    fds: "none",
    requires: "PAGEFAULT",
  },
  POSTCOPY_END: {
    id: 30,
    payload: "empty",
    reply: "u64",
    fds: "none",
    failure: { value: 1n },
    requires: "PAGEFAULT",
  },
  GET_INFLIGHT_FD: {
    id: 31,
    payload: "inflight",
    reply: "inflight",
    fds: "none",
    replyFds: "ifMapped",
    failure: { mmapSize: 0n, mmapOffset: 0n, numQueues: 0, queueSize: 0 },
    requires: "INFLIGHT_SHMFD",
  },
  SET_INFLIGHT_FD: {
    id: 32,
    payload: "inflight",
    reply: "none",
    fds: "one",
    requires: "INFLIGHT_SHMFD",
  },
  GPU_SET_SOCKET: { id: 33, payload: "empty", reply: "none", fds: "one" },
  RESET_DEVICE: {
    id: 34,
    payload: "empty",
    reply: "none",
    fds: "none",
    requires: "RESET_DEVICE",
  },
  VRING_KICK: {
    id: 35,
    payload: "vringState",
    reply: "none",
    fds: "none",
    requires: "INBAND_NOTIFICATIONS",
    maxNum: 0,
  },
  GET_MAX_MEM_SLOTS: {
    id: 36,
    payload: "empty",
    reply: "u64",
    fds: "none",
    requires: "CONFIGURE_MEM_SLOTS",
  },
  ADD_MEM_REG: {
    id: 37,
    payload: "memoryRegion",
    reply: "none",
    fds: "one",
    requires: "CONFIGURE_MEM_SLOTS",
    postcopyReply: "memoryRegion",
  },
  REM_MEM_REG: {
    id: 38,
    payload: "memoryRegion",
    reply: "none",
    // Some front-ends send one: it is closed unused.
    fds: "optional",
    requires: "CONFIGURE_MEM_SLOTS",
  },
  SET_STATUS: {
    id: 39,
    payload: "u64",
    reply: "none",
    fds: "none",
    requires: "STATUS",
  },
  GET_STATUS: {
    id: 40,
    payload: "empty",
    reply: "u64",
    fds: "none",
    requires: "STATUS",
  },
  // QEMU 10.0 and 11.1 send this with a size of 0, without the UUID: there it
  // is refused, as the UUID is all that it says.
  GET_SHARED_OBJECT: {
    id: 41,
    payload: "shared",
    reply: "empty",
    fds: "none",
    replyFds: "optional",
    requires: "SHARED_OBJECT",
  },
  SET_DEVICE_STATE_FD: {
    id: 42,
    payload: "deviceState",
    // Bits 0 to 7: error. Bit 8: no fd comes with the reply.
    reply: "u64",
    fds: "one",
    replyFds: "optional",
    failure: { value: 0x101n },
    requires: "DEVICE_STATE",
  },
  CHECK_DEVICE_STATE: {
    id: 43,
    payload: "empty",
    reply: "u64",
    fds: "none",
    failure: { value: 1n },
    requires: "DEVICE_STATE",
  },
} as const;

/** The name of a request that a front-end sends. */
export type FrontendRequest = keyof typeof frontendRequests;

/**
 * Every request of the back-end on its own channel, by name without the prefix
 * `VHOST_USER_BACKEND_`. All need BACKEND_REQ; those that carry an fd need
 * BACKEND_SEND_FD as well.
 *
 * Source: QEMU 10.0 docs/interop/vhost-user.rst, "Back-end message types"; 9
 * and 10 from QEMU 11.1 hw/virtio/vhost-user.c and rust-vmm's vhost 0.16.
 */
export const backendRequests = {
  IOTLB_MSG: { id: 1, payload: "iotlb", reply: "none", fds: "none" },
  CONFIG_CHANGE_MSG: {
    id: 2,
    payload: "empty",
    reply: "none",
    fds: "none",
    requires: "CONFIG",
  },
  VRING_HOST_NOTIFIER_MSG: {
    id: 3,
    payload: "vringArea",
    reply: "none",
    fds: "unlessNoFd",
    requires: "HOST_NOTIFIER",
  },
  VRING_CALL: {
    id: 4,
    payload: "vringState",
    reply: "none",
    fds: "none",
    requires: "INBAND_NOTIFICATIONS",
    maxNum: 0,
  },
  VRING_ERR: {
    id: 5,
    payload: "vringState",
    reply: "none",
    fds: "none",
    requires: "INBAND_NOTIFICATIONS",
    maxNum: 0,
  },
  SHARED_OBJECT_ADD: {
    id: 6,
    payload: "shared",
    reply: "none",
    fds: "none",
    requires: "SHARED_OBJECT",
  },
  SHARED_OBJECT_REMOVE: {
    id: 7,
    payload: "shared",
    reply: "none",
    fds: "none",
    requires: "SHARED_OBJECT",
  },
  SHARED_OBJECT_LOOKUP: {
    id: 8,
    payload: "shared",
    reply: "u64",
    fds: "none",
    // The dma-buf; none comes with an error.
    replyFds: "optional",
    requires: "SHARED_OBJECT",
  },
  SHMEM_MAP: {
    id: 9,
    payload: "mmap",
    reply: "none",
    fds: "one",
    requires: "SHMEM",
  },
  SHMEM_UNMAP: {
    id: 10,
    payload: "mmap",
    reply: "none",
    fds: "none",
    requires: "SHMEM",
  },
} as const;

/** The name of a request that a back-end sends on its own channel. */
export type BackendRequest = keyof typeof backendRequests;

/**
 * How many file descriptors a front-end's request can have at the most; none
 * where the request is not known.
 *
 * @param id The number on the wire
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { mostFds } from "./mod.ts";
 *
 * assertEquals([5, 12, 1, 999].map(mostFds), [8, 1, 0, 0]);
 * ```
 */
export function mostFds(id: number): number {
  const name = frontendRequestName(id);
  const rule = name === undefined ? "none" : frontendRequests[name].fds;
  if (rule === "none") return 0;
  return rule === "perRegion" ? MAX_FDS : 1;
}

const frontendNames = namesById<FrontendRequest>(frontendRequests);
const backendNames = namesById<BackendRequest>(backendRequests);

function namesById<Name extends string>(
  table: Record<Name, RequestRule>,
): ReadonlyMap<number, Name> {
  const names = Object.keys(table) as Name[];
  return new Map(names.map((name) => [table[name].id, name]));
}

/**
 * The name of a front-end's request.
 *
 * @param id The number on the wire
 * @returns Its name, or undefined where the number is not known
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { frontendRequestName } from "./mod.ts";
 *
 * assertEquals(frontendRequestName(8), "SET_VRING_NUM");
 * assertEquals(frontendRequestName(999), undefined);
 * ```
 */
export function frontendRequestName(id: number): FrontendRequest | undefined {
  return frontendNames.get(id);
}

/**
 * The name of a request on the back-end's channel.
 *
 * @param id The number on the wire
 * @returns Its name, or undefined where the number is not known
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { backendRequestName } from "./mod.ts";
 *
 * assertEquals(backendRequestName(2), "CONFIG_CHANGE_MSG");
 * assertEquals(backendRequestName(0), undefined);
 * ```
 */
export function backendRequestName(id: number): BackendRequest | undefined {
  return backendNames.get(id);
}
