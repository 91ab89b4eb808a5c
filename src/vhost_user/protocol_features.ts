/**
 * Protocol feature bits by name, without the prefix `VHOST_USER_PROTOCOL_F_`.
 *
 * Bits 0 to 19: QEMU 10.0 docs/interop/vhost-user.rst, "Protocol features" (bit 4 is spelled `MTU`
 * there and `NET_MTU` in the text and in the code). Bits 20 to 23: QEMU 11.1
 * include/hw/virtio/vhost-user.h. Earlier patches of SHMEM, and rust-vmm before vhost 0.16, had it
 * at 20.
 */
export const protocolFeatures = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  NET_MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
  GET_VRING_BASE_INFLIGHT: 20,
  GPA_ADDRESSES: 21,
  SHMEM: 22,
  GET_VRING_BASE_SKIP_DRAIN: 23,
} as const;

/** The name of a protocol feature. */
export type ProtocolFeature = keyof typeof protocolFeatures;

/**
 * The 64-bit mask with the bits of the named protocol features.
 *
 * @param names Protocol features by name
 * @returns The mask, as in SET_PROTOCOL_FEATURES
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { protocolFeatureMask } from "./mod.ts";
 *
 * assertEquals(protocolFeatureMask("MQ", "REPLY_ACK", "CONFIG"), 0x209n);
 * ```
 */
export function protocolFeatureMask(...names: readonly ProtocolFeature[]): bigint {
  return names.reduce((mask, name) => mask | 1n << BigInt(protocolFeatures[name]), 0n);
}

/** Whether a mask has a protocol feature. */
export function hasProtocolFeature(mask: bigint, name: ProtocolFeature): boolean {
  return (mask & protocolFeatureMask(name)) !== 0n;
}

/**
 * The names of the bits in a mask, lowest first. A bit without a name is given as `"bit 40"`, so
 * that nothing that was negotiated stays unseen.
 *
 * @param mask A 64-bit mask of protocol features
 * @returns A name per bit
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { protocolFeatureNames } from "./mod.ts";
 *
 * assertEquals(protocolFeatureNames(0x10000000009n), ["MQ", "REPLY_ACK", "bit 40"]);
 * ```
 */
export function protocolFeatureNames(mask: bigint): string[] {
  const names = Object.entries(protocolFeatures);
  return Array.from({ length: 64 }, (_, bit) => bit)
    .filter((bit) => (mask >> BigInt(bit) & 1n) === 1n)
    .map((bit) => names.find((feature) => feature[1] === bit)?.[0] ?? `bit ${bit}`);
}
