/** Messages that a front-end could send: right in form, and mostly in content. */
import {
  type FrontendMessage,
  frontendMessages,
  type FrontendRequest,
  frontendRequests,
  type MemoryRegion,
} from "../../../src/vhost_user/mod.ts";
import type { Random } from "../../lib/random.ts";
import {
  type Descriptor,
  type DescriptorKind,
  descriptorKinds,
  MEMORY_BYTES,
} from "./descriptors.ts";
import type { Message } from "./recording.ts";

/** Where the front-end says that its memory begins. */
const USER_ADDRESS = 0x7f00_0000_0000;

/** VERSION_1, EVENT_IDX, INDIRECT_DESC and PROTOCOL_FEATURES; RING_PACKED and IN_ORDER now and then. */
const FEATURES = 1n << 32n | 1n << 29n | 1n << 28n | 1n << 30n;
const RING_PACKED = 1n << 34n, IN_ORDER = 1n << 35n;

/** MQ, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS. */
const PROTOCOL_FEATURES = 1n << 0n | 1n << 3n | 1n << 5n | 1n << 9n | 1n << 12n | 1n << 13n |
  1n << 15n |
  1n << 16n;

/** Numbers at which something changes. */
const EDGES = [
  ...[0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 257, 1024, 4095, 4096, 32_768, 32_769],
  ...[65_535, 65_536, MEMORY_BYTES - 1, MEMORY_BYTES, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1],
];

/** The same for a network card: no CONFIG, but RARP and NET_MTU. */
export const NET_PROTOCOL_FEATURES = PROTOCOL_FEATURES & ~(1n << 9n) | 1n << 2n | 1n << 4n;

const NAMES = Object.keys(frontendRequests) as FrontendRequest[];

const INFLIGHT_OFFSET = 0xc_0000;

const ring = (index: number) => index * 0x8000;

/** A number of 32 bits that may matter. */
export function edge(random: Random): number {
  return random.chance(1, 5) ? random.u32() : random.pick(EDGES);
}

function wide(random: Random): bigint {
  switch (random.below(5)) {
    case 0:
      return 2n ** 64n - 1n - BigInt(random.below(4));
    case 1:
      return 1n << BigInt(random.below(64));
    case 2:
      return BigInt(random.u32()) << 32n | BigInt(random.u32());
    default:
      return BigInt(edge(random));
  }
}

function index(random: Random): number {
  return random.chance(1, 8) ? edge(random) : random.below(3);
}

/** The region that everything lies in, as it should be or nearly so. */
function region(random: Random, isRight: boolean): MemoryRegion {
  const right = {
    guestAddress: 0n,
    size: BigInt(MEMORY_BYTES),
    userAddress: BigInt(USER_ADDRESS),
    mmapOffset: 0n,
  };
  if (isRight) return right;
  const field = random.pick(["guestAddress", "size", "userAddress", "mmapOffset"] as const);
  return { ...right, [field]: wide(random) };
}

function encode(
  message: FrontendMessage,
  fds: readonly DescriptorKind[] = [],
  needReply = false,
): Message {
  return {
    bytes: frontendMessages.encode(message, { needReply }),
    fds: fds.map((kind): Descriptor => ({ kind })),
  };
}

/** A session as it should be: two queues that run. */
export function validSession(
  random: Random,
  memory: DescriptorKind = random.pick(["memory", "memory", "shrinking memory"]),
  protocolFeatures = PROTOCOL_FEATURES,
): Message[] {
  let features = FEATURES;
  if (random.chance(1, 3)) features |= RING_PACKED;
  if (random.chance(1, 4)) features |= IN_ORDER;
  const packed = (features & RING_PACKED) !== 0n;
  const size = 1 << random.between(1, 8);
  const table = random.chance(1, 2);
  return [
    encode({ request: "GET_FEATURES" }),
    encode({ request: "GET_PROTOCOL_FEATURES" }),
    encode({ request: "SET_PROTOCOL_FEATURES", value: protocolFeatures }),
    encode({ request: "SET_OWNER" }),
    encode({ request: "SET_BACKEND_REQ_FD" }, ["socket"], true),
    encode({ request: "SET_FEATURES", value: features }, [], true),
    table
      ? encode({ request: "SET_MEM_TABLE", regions: [region(random, true)] }, [memory], true)
      : encode({ request: "ADD_MEM_REG", region: region(random, true) }, [memory], true),
    ...random.chance(1, 3)
      ? [encode({ request: "SET_INFLIGHT_FD", ...inflightArea(2, 256) }, ["memory"], true)]
      : [],
    ...[0, 1].flatMap((index) => [
      encode({ request: "SET_VRING_NUM", index, num: size }),
      encode({ request: "SET_VRING_BASE", index, num: packed ? 0x8000_8000 : 0 }),
      encode({ request: "SET_VRING_ADDR", ...ringAddress(index) }),
      encode({ request: "SET_VRING_CALL", index, noFd: false }, [
        random.pick(["eventfd", "full eventfd", "full eventfd", "pipe to write"]),
      ]),
      encode({ request: "SET_VRING_ERR", index, noFd: false }, ["eventfd"]),
      encode({ request: "SET_VRING_KICK", index, noFd: false }, [
        random.pick(["eventfd", "eventfd", "eventfd", "pipe to read", "pipe without a writer"]),
      ]),
      encode({ request: "SET_VRING_ENABLE", index, num: 1 }, [], true),
    ]),
  ];
}

/** Starts rings on the shrinking memory, takes it away and gives it again, in an order that may make no sense. */
export function memoryAgain(random: Random): Message[] {
  const kick = (index: number) =>
    encode({ request: "SET_VRING_KICK", index, noFd: false }, ["eventfd"], random.chance(1, 2));
  const right = region(random, true);
  return Array.from({ length: random.between(2, 10) }, () => {
    switch (random.below(4)) {
      case 0:
        return kick(random.below(2));
      case 1:
        return encode({ request: "REM_MEM_REG", region: right }, [], random.chance(1, 2));
      case 2:
        return encode({ request: "ADD_MEM_REG", region: right }, ["shrinking memory"]);
      default:
        return encode({ request: "SET_MEM_TABLE", regions: [right] }, ["shrinking memory"]);
    }
  });
}

function ringAddress(index: number) {
  const at = USER_ADDRESS + ring(index);
  return {
    index,
    flags: 0,
    descriptor: BigInt(at),
    available: BigInt(at + 0x2000),
    used: BigInt(at + 0x4000),
    log: 0n,
  };
}

/** Records of what is in flight, in the memory that rings are put into. */
function inflightArea(numQueues: number, queueSize: number) {
  return {
    mmapSize: BigInt(MEMORY_BYTES - INFLIGHT_OFFSET),
    mmapOffset: BigInt(INFLIGHT_OFFSET),
    numQueues,
    queueSize,
  };
}

/** A message with a name, an index or a size that may make no sense. */
export function randomMessage(random: Random): Message {
  const request = random.pick(NAMES);
  const needReply = random.chance(1, 2);
  const kind = random.pick(descriptorKinds);
  switch (request) {
    case "SET_FEATURES":
    case "SET_PROTOCOL_FEATURES":
    case "SET_STATUS":
      return encode({ request, value: wide(random) }, [], needReply);
    case "SET_MEM_TABLE": {
      const regions = Array.from(
        { length: random.below(4) },
        () => region(random, random.chance(1, 2)),
      );
      const fds = regions.map(() => random.chance(1, 2) ? "memory" : random.pick(descriptorKinds));
      return encode({ request, regions }, fds, needReply);
    }
    case "ADD_MEM_REG":
      return encode({ request, region: region(random, random.chance(1, 2)) }, [kind], needReply);
    case "REM_MEM_REG":
      return encode({ request, region: region(random, random.chance(1, 2)) }, [], needReply);
    case "SET_VRING_NUM":
    case "SET_VRING_BASE":
    case "GET_VRING_BASE":
    case "SET_VRING_ENABLE":
      return encode({ request, index: index(random), num: edge(random) }, [], needReply);
    case "SET_VRING_ADDR": {
      const address = ringAddress(index(random));
      if (random.chance(1, 2)) {
        address[random.pick(["descriptor", "available", "used"] as const)] = random.chance(1, 2)
          ? wide(random)
          : BigInt(USER_ADDRESS + edge(random));
      }
      return encode({ request, ...address }, [], needReply);
    }
    case "SET_VRING_KICK":
    case "SET_VRING_CALL":
    case "SET_VRING_ERR": {
      const noFd = random.chance(1, 4);
      return encode({ request, index: random.below(4), noFd }, noFd ? [] : [kind], needReply);
    }
    case "GET_CONFIG":
    case "SET_CONFIG": {
      const size = random.below(12);
      const data = Uint8Array.from({ length: size }, () => random.below(256));
      return encode({ request, offset: edge(random), size, flags: random.below(3), data });
    }
    case "GET_INFLIGHT_FD":
    case "SET_INFLIGHT_FD": {
      const right = inflightArea(random.pick([1, 2, 3]), 1 << random.below(9));
      const message = random.chance(1, 2)
        ? right
        : { ...right, [random.pick(["mmapSize", "mmapOffset"] as const)]: wide(random) };
      const isRight = random.chance(1, 2);
      return encode(
        { request, ...message },
        request === "GET_INFLIGHT_FD" ? [] : [isRight ? "memory" : kind],
        needReply,
      );
    }
    case "SET_BACKEND_REQ_FD":
      return encode({ request }, [random.chance(1, 2) ? "socket" : kind], needReply);
    default:
      return anyBytes(random, frontendRequests[request].id, needReply);
  }
}

/** A message of a number with any payload. */
function anyBytes(random: Random, id: number, needReply: boolean): Message {
  const size = random.pick([0, 0, 4, 8, 16, 24, 32, 40, 256, 268, 1072, 4096]);
  const bytes = new Uint8Array(12 + size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, id, true);
  view.setUint32(4, needReply ? 9 : 1, true);
  view.setUint32(8, size, true);
  for (let at = 12; at < bytes.length; at += 4) {
    if (random.chance(1, 3)) view.setUint32(at, edge(random), true);
  }
  return { bytes, fds: [] };
}

/** Puts descriptors and indexes of all sorts where the rings are. */
export function scribble(random: Random, memory: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(memory.buffer);
  for (let i = 0; i < 64; i++) {
    // Mostly as it is for queues that have not run.
    const at = INFLIGHT_OFFSET + random.below(0x4000);
    memory[at] = random.chance(1, 64) ? random.below(256) : random.below(2) * memory[at];
  }
  for (const index of [0, 1]) {
    const at = ring(index);
    for (let i = 0; i < 8; i++) {
      const descriptor = at + i * 16;
      view.setUint32(descriptor, random.chance(1, 4) ? edge(random) : 0x8_0000 + i * 64, true);
      view.setUint32(descriptor + 4, random.chance(1, 16) ? random.below(4) : 0, true);
      view.setUint32(descriptor + 8, random.chance(1, 4) ? edge(random) : 16, true);
      view.setUint16(
        descriptor + 12,
        random.chance(1, 4) ? random.below(65_536) : random.below(4),
        true,
      );
      view.setUint16(descriptor + 14, random.below(8), true);
    }
    view.setUint16(at + 0x2000, random.below(2), true);
    view.setUint16(at + 0x2002, random.chance(1, 8) ? random.below(65_536) : random.below(5), true);
    for (let i = 0; i < 4; i++) view.setUint16(at + 0x2004 + i * 2, random.below(8), true);
    view.setUint32(at + 0x4000, random.chance(1, 4) ? random.u32() : 0, true);
  }
}
