/**
 * Packets: their sizes, offloads and ends.
 *
 * @module
 */

/** The size of struct virtio_net_hdr, with which every packet begins: virtio 1.3, 5.1.6. */
export const HEADER_BYTES = 12;

/** The smallest frame: an Ethernet header. */
export const MIN_FRAME_BYTES = 14;

/** The largest frame: an Ethernet header with a VLAN tag, and the largest IP packet. */
export const MAX_FRAME_BYTES = 18 + 65_535;

/** What `Port.send` returns for a packet that is on its way. */
export const SENT = 0;

/** What `Port.send` returns when the packet has to wait for `PortOwner.writable`. */
export const FULL = -1;

/** Why a packet was dropped. `Port.send` may return one of these. */
export const Drop = {
  /** The frame has no whole Ethernet header. */
  TINY: 1,
  /** The frame is larger than any. */
  OVERSIZE: 2,
  /** The virtio-net header contradicts the packet or the negotiated features. */
  HEADER: 3,
  /** The medium refused the packet. */
  REFUSED: 4,
  /** The packet is larger than the buffers that the driver has given. */
  BUFFERS: 5,
  /** The user's network failed on the packet. */
  HANDLER: 6,
  /** The port's queue was full. */
  QUEUE: 7,
  /** The port has no connection now. */
  NO_PEER: 8,
  /** The source address is not the port's. */
  SOURCE: 9,
  /** The destination is on the network that the packet comes from. */
  LOCAL: 10,
  /** The sender is isolated from the receiver. */
  ISOLATED: 11,
  /** The receiver's guest has no driver that runs. */
  DOWN: 12,
  /** The link is down: `POST /link`. */
  LINK: 13,
  /** An impairment lost it. */
  LOSS: 14,
  /** Too many packets are delayed. */
  DELAY: 15,
} as const;

/** The names of drop reasons in the record, by number. */
export const DROP_NAMES = [
  "",
  "tiny",
  "oversize",
  "header",
  "refused",
  "buffers",
  "handler",
  "queue",
  "no peer",
  "source",
  "local",
  "isolated",
  "down",
  "link down",
  "loss",
  "delay",
] as const;

/** The offloads of a port, by the names of feature bits that depend on them. */
export type Offload =
  | "CSUM"
  | "GUEST_CSUM"
  | "GUEST_TSO4"
  | "GUEST_TSO6"
  | "GUEST_ECN"
  | "GUEST_UFO"
  | "GUEST_USO4"
  | "GUEST_USO6"
  | "HOST_TSO4"
  | "HOST_TSO6"
  | "HOST_ECN"
  | "HOST_UFO"
  | "HOST_USO";

/** All offloads, for ports that take and give packets of every form. */
export const ALL_OFFLOADS: readonly Offload[] = [
  "CSUM",
  "GUEST_CSUM",
  "GUEST_TSO4",
  "GUEST_TSO6",
  "GUEST_ECN",
  "GUEST_UFO",
  "GUEST_USO4",
  "GUEST_USO6",
  "HOST_TSO4",
  "HOST_TSO6",
  "HOST_ECN",
  "HOST_UFO",
  "HOST_USO",
];
