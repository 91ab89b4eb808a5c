/**
 * Feature bits: virtio 1.3, 2.2 and 6.
 *
 * @module
 */

/** A feature bit of a device type. */
export interface FeatureDefinition {
  /** The bit, as the device type's section numbers it. */
  readonly bit: number;
  /** Its meaning, in a few words. */
  readonly about: string;
}

/**
 * The bits that are not a device type's own: virtio 1.3, 6 Reserved Feature Bits, and two that
 * vhost uses between a front-end and a back-end.
 */
export const transportFeatures = {
  NOTIFY_ON_EMPTY: { bit: 24, about: "Notifies when the queue runs empty (legacy)" },
  LOG_ALL: { bit: 26, about: "The back-end logs what it writes (vhost, for migration)" },
  ANY_LAYOUT: { bit: 27, about: "Buffers may be divided in any way (legacy)" },
  INDIRECT_DESC: { bit: 28, about: "Descriptors may refer to tables of descriptors" },
  EVENT_IDX: { bit: 29, about: "Each side says at which index it wants to be notified" },
  PROTOCOL_FEATURES: { bit: 30, about: "vhost-user protocol features are negotiated (vhost)" },
  VERSION_1: { bit: 32, about: "Follows virtio 1.0 or later, not the legacy interface" },
  ACCESS_PLATFORM: { bit: 33, about: "Device access to memory goes through an IOMMU" },
  RING_PACKED: { bit: 34, about: "Packed virtqueues" },
  IN_ORDER: { bit: 35, about: "Buffers are used in the order in which they were made available" },
  ORDER_PLATFORM: { bit: 36, about: "Memory accesses are ordered as the platform says" },
  SR_IOV: { bit: 37, about: "Single root I/O virtualisation" },
  NOTIFICATION_DATA: { bit: 38, about: "The driver passes extra data with its notifications" },
  NOTIF_CONFIG_DATA: {
    bit: 39,
    about: "The driver passes data that the device chose with its notifications",
  },
  RING_RESET: { bit: 40, about: "A single queue can be reset" },
  ADMIN_VQ: { bit: 41, about: "Has administration virtqueues" },
} as const satisfies Record<string, FeatureDefinition>;

/** The name of a bit that is not a device type's own. */
export type TransportFeature = keyof typeof transportFeatures;

/** The mask of one bit. */
export function featureMask(bit: number): bigint {
  return 1n << BigInt(bit);
}

/** The mask of transport features, by name. */
export function transportMask(...names: TransportFeature[]): bigint {
  return names.reduce((mask, name) => mask | featureMask(transportFeatures[name].bit), 0n);
}

/** Whether a mask has a bit. */
export function hasFeature(mask: bigint, bit: number): boolean {
  return (mask & featureMask(bit)) !== 0n;
}

/** A bit with its name, for the record and for messages. */
export interface NamedFeature {
  /** The bit. */
  bit: number;
  /** Its name in the standard, without prefix; `bit N` where it has none. */
  name: string;
  /** The part of the standard that defines it. */
  owner: "device" | "transport";
}

/**
 * Names the bits of a mask, lowest first.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { nameFeatures } from "./features.ts";
 *
 * const features = { RO: { bit: 5, about: "Read-only" } };
 * assertEquals(nameFeatures(1n << 5n | 1n << 32n, features).map(({ name }) => name), [
 *   "RO",
 *   "VERSION_1",
 * ]);
 * ```
 */
export function nameFeatures(
  mask: bigint,
  features: Readonly<Record<string, FeatureDefinition>> = {},
): NamedFeature[] {
  const named: NamedFeature[] = [];
  for (let bit = 0; mask >> BigInt(bit) !== 0n; bit++) {
    if (!hasFeature(mask, bit)) continue;
    const own = Object.entries(features).find(([, feature]) => feature.bit === bit);
    const transport = Object.entries(transportFeatures).find(([, feature]) => feature.bit === bit);
    named.push({
      bit,
      name: own?.[0] ?? transport?.[0] ?? `bit ${bit}`,
      owner: own === undefined && transport !== undefined ? "transport" : "device",
    });
  }
  return named;
}
