import {
  hasProtocolFeature,
  type ProtocolFeature,
  protocolFeatureMask,
} from "../vhost_user/mod.ts";
import { transportMask } from "../virtio/features.ts";
import type { BackChannel, BackChannelOptions } from "./back_channel.ts";
import type { FrontendConnection } from "./connection.ts";

/** Bits 0 to 23 and 50 to 63 are the device's: virtio 1.3, 2.2. */
const DEVICE_FEATURES = 0xfffc_0000_00ff_ffffn;

/** Every feature bit that {@linkcode VirtioDriver} can keep its part of. */
export const driverFeatures: bigint = DEVICE_FEATURES | transportMask(
  "INDIRECT_DESC",
  "EVENT_IDX",
  "PROTOCOL_FEATURES",
  "VERSION_1",
  "RING_PACKED",
  "IN_ORDER",
  "ORDER_PLATFORM",
);

/** Every protocol feature that {@linkcode VirtioDriver} can keep its part of. */
export const driverProtocolFeatures: bigint = protocolFeatureMask(
  "MQ",
  "REPLY_ACK",
  "BACKEND_REQ",
  "CONFIG",
  "BACKEND_SEND_FD",
  "INFLIGHT_SHMFD",
  "RESET_DEVICE",
  "CONFIGURE_MEM_SLOTS",
  "STATUS",
);

/** What a driver wants. */
export interface NegotiationOptions extends BackChannelOptions {
  /**
   * The feature bits to acknowledge where they are offered. Bit 30, of vhost-user's own, is always
   * acknowledged; RING_PACKED and IN_ORDER are not among `"all"`.
   *
   * @default {"all"}
   */
  features?: bigint | "all";
  /**
   * The protocol features to acknowledge where they are offered.
   *
   * @default {"all"}
   */
  protocolFeatures?: bigint | "all";
  /**
   * Give memory region by region (CONFIGURE_MEM_SLOTS) where that is offered.
   *
   * @default {true}
   */
  useMemSlots?: boolean;
  /**
   * Acknowledge VIRTIO_F_INDIRECT_DESC where it is offered.
   *
   * @default {true}
   */
  indirect?: boolean;
  /**
   * Acknowledge VIRTIO_F_EVENT_IDX where it is offered.
   *
   * @default {true}
   */
  eventIndex?: boolean;
  /**
   * Acknowledge VIRTIO_F_RING_PACKED where it is offered.
   *
   * @default {if it is in the mask that was given as `features`}
   */
  packed?: boolean;
  /**
   * Acknowledge VIRTIO_F_IN_ORDER where it is offered.
   *
   * @default {if it is in the mask that was given as `features`}
   */
  inOrder?: boolean;
  /**
   * Let the back-end record requests in flight (INFLIGHT_SHMFD) where that is offered.
   *
   * @default {false}
   */
  inflight?: boolean;
}

/** What a driver and a device agreed upon. */
export interface Negotiated {
  /** The feature bits that the device offers. */
  offeredFeatures: bigint;
  /** The feature bits to acknowledge with SET_FEATURES. */
  features: bigint;
  /** The protocol features that the back-end offers. */
  offeredProtocolFeatures: bigint;
  /** The protocol features in force. */
  protocolFeatures: bigint;
  /** VIRTIO_F_INDIRECT_DESC is among the features. */
  indirect: boolean;
  /** VIRTIO_F_EVENT_IDX is among the features. */
  eventIndex: boolean;
  /** VIRTIO_F_RING_PACKED is among the features. */
  packed: boolean;
  /** VIRTIO_F_IN_ORDER is among the features. */
  inOrder: boolean;
  /** How many virtqueues the device has at the most; undefined without MQ. */
  maxQueues: number | undefined;
  /** How many memory regions it takes one by one; undefined without CONFIGURE_MEM_SLOTS. */
  memSlots: number | undefined;
  /** The back-end's own channel; undefined without BACKEND_REQ. The caller's to close. */
  backChannel: BackChannel | undefined;
}

/**
 * Negotiates as QEMU does when it connects, up to the second GET_FEATURES; the eventfds of the
 * virtqueues come next.
 */
export async function negotiate(
  connection: FrontendConnection,
  options: NegotiationOptions = {},
): Promise<Negotiated> {
  const wanted = wantedFeatures(options);
  const first = await connection.getFeatures();
  let offeredProtocolFeatures = 0n;
  let protocolFeatures = 0n;
  if ((first & transportMask("PROTOCOL_FEATURES")) !== 0n) {
    offeredProtocolFeatures = await connection.getProtocolFeatures();
    protocolFeatures = offeredProtocolFeatures & wantedProtocolFeatures(options);
    await connection.setProtocolFeatures(protocolFeatures);
  }
  const has = (name: ProtocolFeature) => hasProtocolFeature(protocolFeatures, name);
  const maxQueues = has("MQ") ? await connection.getQueueNum() : undefined;
  const memSlots = has("CONFIGURE_MEM_SLOTS") ? await connection.getMaxMemSlots() : undefined;
  const backChannel = has("BACKEND_REQ") ? await connection.openBackChannel(options) : undefined;
  try {
    await connection.setOwner();
    const offeredFeatures = await connection.getFeatures();
    const features = offeredFeatures & wanted;
    return {
      offeredFeatures,
      features,
      offeredProtocolFeatures,
      protocolFeatures,
      indirect: (features & transportMask("INDIRECT_DESC")) !== 0n,
      eventIndex: (features & transportMask("EVENT_IDX")) !== 0n,
      packed: (features & transportMask("RING_PACKED")) !== 0n,
      inOrder: (features & transportMask("IN_ORDER")) !== 0n,
      maxQueues,
      memSlots,
      backChannel,
    };
  } catch (error) {
    await backChannel?.close();
    throw error;
  }
}

function wantedFeatures(options: NegotiationOptions): bigint {
  const { features = "all", indirect, eventIndex, packed, inOrder } = options;
  const others = transportMask("RING_PACKED", "IN_ORDER");
  let wanted = features === "all"
    ? driverFeatures & ~others
    : features | transportMask("PROTOCOL_FEATURES");
  const unable = wanted & ~driverFeatures;
  if (unable !== 0n) {
    throw new RangeError(
      `Expected feature bits that this driver can do, got also 0x${unable.toString(16)}`,
    );
  }
  if (indirect === false) wanted &= ~transportMask("INDIRECT_DESC");
  if (eventIndex === false) wanted &= ~transportMask("EVENT_IDX");
  for (const [name, choice] of [["RING_PACKED", packed], ["IN_ORDER", inOrder]] as const) {
    if (choice === true) wanted |= transportMask(name);
    if (choice === false) wanted &= ~transportMask(name);
  }
  return wanted;
}

function wantedProtocolFeatures(options: NegotiationOptions): bigint {
  const { protocolFeatures = "all", useMemSlots = true, inflight = false } = options;
  let wanted = protocolFeatures === "all" ? driverProtocolFeatures : protocolFeatures;
  if (!useMemSlots) wanted &= ~protocolFeatureMask("CONFIGURE_MEM_SLOTS");
  if (!inflight) wanted &= ~protocolFeatureMask("INFLIGHT_SHMFD");
  return wanted;
}
