/**
 * The vhost-user protocol: bytes in, values out, no I/O.
 *
 * Two tables say everything about the requests, {@linkcode frontendRequests} and
 * {@linkcode backendRequests}; the types of messages, their encoding and every check follow from
 * them. File descriptors travel beside the bytes: here they are only counted, and they stay the
 * caller's.
 *
 * Source: QEMU docs/interop/vhost-user.rst and hw/virtio/vhost-user.c, 10.0.2.
 *
 * @module
 */

export * from "./errors.ts";
export { decodeHeader, type Header, HEADER_BYTES, MAX_PAYLOAD_BYTES } from "./header.ts";
export * from "./message.ts";
export * from "./payload_values.ts";
export * from "./payloads.ts";
export * from "./protocol_features.ts";
export * from "./receive.ts";
export * from "./requests.ts";
