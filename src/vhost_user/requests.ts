import type { PayloadKind } from "./payload_values.ts";
import type { ProtocolFeature } from "./protocol_features.ts";

/** File descriptors that one message can carry: QEMU docs/interop/vhost-user.rst. */
export const MAX_FDS = 8;

/**
 * How many file descriptors come with a message, in its ancillary data.
 *
 * - `"none"` and `"one"`: exactly that many
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
   * The payload of the request's own reply. Without one the request has only the acknowledgement of
   * REPLY_ACK, when the sender asks for it.
   */
  readonly reply?: PayloadKind;
  /**
   * File descriptors that come with the request.
   *
   * @default {"none"}
   */
  readonly fds?: FdRule;
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
   * The fields of the reply that reports a failure, where the protocol has one. Otherwise that is a
   * reply without a payload, as for GET_CONFIG: no value can be read from it.
   */
  readonly failure?: object;
  /** The largest legal `num` of a `vringState`, where the protocol limits it. */
  readonly maxNum?: number;
}

/** Requests by name. */
export type RequestTable = Readonly<Record<string, RequestRule>>;

/**
 * Every request of the front-end, by name without the prefix `VHOST_USER_`.
 *
 * Source: QEMU 10.0 docs/interop/vhost-user.rst, "Front-end message types", with sizes and file
 * descriptors from hw/virtio/vhost-user.c where the two differ. {@linkcode RequestRule} explains
 * the columns.
 */
export const frontendRequests = {
  GET_FEATURES: { id: 1, payload: "empty", reply: "u64" },
  SET_FEATURES: { id: 2, payload: "u64" },
  SET_OWNER: { id: 3, payload: "empty" },
  RESET_OWNER: { id: 4, payload: "empty" },
  SET_MEM_TABLE: { id: 5, payload: "memory", fds: "perRegion" },
  // Without LOG_SHMFD, QEMU sends the same 16 bytes and no fd.
  SET_LOG_BASE: {
    id: 6,
    payload: "log",
    reply: "optionalU64",
    fds: "optional",
    replyRequires: "LOG_SHMFD",
  },
  SET_LOG_FD: { id: 7, payload: "empty", fds: "one" },
  SET_VRING_NUM: { id: 8, payload: "vringState" },
  SET_VRING_ADDR: { id: 9, payload: "vringAddress" },
  SET_VRING_BASE: { id: 10, payload: "vringState" },
  // `num` is reserved here, but front-ends that leave it uninitialised would hang on a refused
  // stop: it is not checked.
  GET_VRING_BASE: { id: 11, payload: "vringState", reply: "vringState" },
  SET_VRING_KICK: { id: 12, payload: "vringFd", fds: "unlessNoFd" },
  SET_VRING_CALL: { id: 13, payload: "vringFd", fds: "unlessNoFd" },
  SET_VRING_ERR: { id: 14, payload: "vringFd", fds: "unlessNoFd" },
  GET_PROTOCOL_FEATURES: { id: 15, payload: "empty", reply: "u64" },
  SET_PROTOCOL_FEATURES: { id: 16, payload: "u64" },
  GET_QUEUE_NUM: { id: 17, payload: "empty", reply: "u64", requires: "MQ" },
  SET_VRING_ENABLE: { id: 18, payload: "vringState", maxNum: 1 },
  SEND_RARP: { id: 19, payload: "u64", requires: "RARP" },
  NET_SET_MTU: { id: 20, payload: "u64", requires: "NET_MTU" },
  SET_BACKEND_REQ_FD: { id: 21, payload: "empty", fds: "one", requires: "BACKEND_REQ" },
  IOTLB_MSG: { id: 22, payload: "iotlb", reply: "u64", failure: { value: 1n } },
  SET_VRING_ENDIAN: { id: 23, payload: "vringState", requires: "CROSS_ENDIAN", maxNum: 1 },
  GET_CONFIG: { id: 24, payload: "config", reply: "configReply", requires: "CONFIG" },
  SET_CONFIG: { id: 25, payload: "config", requires: "CONFIG" },
  CREATE_CRYPTO_SESSION: {
    id: 26,
    payload: "cryptoSession",
    reply: "cryptoSessionReply",
    failure: { sessionId: -1n },
    requires: "CRYPTO_SESSION",
  },
  CLOSE_CRYPTO_SESSION: { id: 27, payload: "u64", requires: "CRYPTO_SESSION" },
  // The userfault fd; a back-end that could not open one sends none.
  POSTCOPY_ADVISE: {
    id: 28,
    payload: "empty",
    reply: "empty",
    replyFds: "optional",
    requires: "PAGEFAULT",
  },
  POSTCOPY_LISTEN: { id: 29, payload: "empty", requires: "PAGEFAULT" },
  POSTCOPY_END: {
    id: 30,
    payload: "empty",
    reply: "u64",
    failure: { value: 1n },
    requires: "PAGEFAULT",
  },
  GET_INFLIGHT_FD: {
    id: 31,
    payload: "inflight",
    reply: "inflight",
    replyFds: "ifMapped",
    failure: { mmapSize: 0n, mmapOffset: 0n, numQueues: 0, queueSize: 0 },
    requires: "INFLIGHT_SHMFD",
  },
  SET_INFLIGHT_FD: { id: 32, payload: "inflight", fds: "one", requires: "INFLIGHT_SHMFD" },
  GPU_SET_SOCKET: { id: 33, payload: "empty", fds: "one" },
  RESET_DEVICE: { id: 34, payload: "empty", requires: "RESET_DEVICE" },
  VRING_KICK: { id: 35, payload: "vringState", requires: "INBAND_NOTIFICATIONS", maxNum: 0 },
  GET_MAX_MEM_SLOTS: { id: 36, payload: "empty", reply: "u64", requires: "CONFIGURE_MEM_SLOTS" },
  ADD_MEM_REG: {
    id: 37,
    payload: "memoryRegion",
    fds: "one",
    requires: "CONFIGURE_MEM_SLOTS",
  },
  // Some front-ends send one: it is closed unused.
  REM_MEM_REG: {
    id: 38,
    payload: "memoryRegion",
    fds: "optional",
    requires: "CONFIGURE_MEM_SLOTS",
  },
  SET_STATUS: { id: 39, payload: "u64", requires: "STATUS" },
  GET_STATUS: { id: 40, payload: "empty", reply: "u64", requires: "STATUS" },
  // QEMU 10.0 and 11.1 send this with a size of 0, without the UUID: there it is refused, as the
  // UUID is all that it says.
  GET_SHARED_OBJECT: {
    id: 41,
    payload: "shared",
    reply: "empty",
    replyFds: "optional",
    requires: "SHARED_OBJECT",
  },
  // Bits 0 to 7: error. Bit 8: no fd comes with the reply.
  SET_DEVICE_STATE_FD: {
    id: 42,
    payload: "deviceState",
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
    failure: { value: 1n },
    requires: "DEVICE_STATE",
  },
} as const;

/** The name of a request that a front-end sends. */
export type FrontendRequest = keyof typeof frontendRequests;

/**
 * Every request of the back-end on its own channel, by name without the prefix
 * `VHOST_USER_BACKEND_`. All need BACKEND_REQ; those that carry an fd need BACKEND_SEND_FD as well.
 *
 * Source: QEMU 10.0 docs/interop/vhost-user.rst, "Back-end message types"; 9 and 10 from QEMU 11.1
 * hw/virtio/vhost-user.c and rust-vmm's vhost 0.16.
 */
export const backendRequests = {
  IOTLB_MSG: { id: 1, payload: "iotlb" },
  CONFIG_CHANGE_MSG: { id: 2, payload: "empty", requires: "CONFIG" },
  VRING_HOST_NOTIFIER_MSG: {
    id: 3,
    payload: "vringArea",
    fds: "unlessNoFd",
    requires: "HOST_NOTIFIER",
  },
  VRING_CALL: { id: 4, payload: "vringState", requires: "INBAND_NOTIFICATIONS", maxNum: 0 },
  VRING_ERR: { id: 5, payload: "vringState", requires: "INBAND_NOTIFICATIONS", maxNum: 0 },
  SHARED_OBJECT_ADD: { id: 6, payload: "shared", requires: "SHARED_OBJECT" },
  SHARED_OBJECT_REMOVE: { id: 7, payload: "shared", requires: "SHARED_OBJECT" },
  // The dma-buf; none comes with an error.
  SHARED_OBJECT_LOOKUP: {
    id: 8,
    payload: "shared",
    reply: "u64",
    replyFds: "optional",
    requires: "SHARED_OBJECT",
  },
  SHMEM_MAP: { id: 9, payload: "mmap", fds: "one", requires: "SHMEM" },
  SHMEM_UNMAP: { id: 10, payload: "mmap", requires: "SHMEM" },
} as const;
