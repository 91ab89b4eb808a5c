import { cryptoSession, cryptoSessionReply } from "./crypto_session.ts";
import { ProtocolError } from "./errors.ts";
import {
  type Config,
  type DeviceState,
  type Empty,
  type Inflight,
  type Iotlb,
  type Log,
  MAX_CONFIG_BYTES,
  MAX_MEMORY_REGIONS,
  type Memory,
  type MemoryRegion,
  type Mmap,
  type PayloadKind,
  type PayloadValues,
  type Shared,
  type SingleMemoryRegion,
  type U64,
  type VringAddress,
  vringAddressFlags,
  type VringArea,
  type VringFd,
  type VringState,
} from "./payload_values.ts";
import {
  byteArray,
  checkSize,
  converted,
  fixed,
  padded,
  type PayloadCodec,
  type Refuse,
  struct,
  u16,
  u32,
  u64,
  u8,
  viewOf,
} from "./wire.ts";

const u64Payload = struct<U64>({ value: u64 });

const memoryRegion = struct<MemoryRegion>({
  guestAddress: u64,
  size: u64,
  userAddress: u64,
  mmapOffset: u64,
});

const memoryHead = padded(u32, { after: 4 });

const memory: PayloadCodec<Memory> = {
  encode: ({ regions }) => {
    if (regions.length > MAX_MEMORY_REGIONS) {
      throw new RangeError(
        `Expected at most ${MAX_MEMORY_REGIONS} memory regions, got ${regions.length}`,
      );
    }
    const bytes = new Uint8Array(memoryBytes(regions.length));
    const view = viewOf(bytes);
    memoryHead.set(view, 0, regions.length);
    regions.forEach((region, i) => memoryRegion.set(view, memoryBytes(i), region));
    return bytes;
  },
  decode: (bytes, refuse) => {
    if (bytes.length < memoryHead.bytes) {
      refuse(`Expected at least ${memoryHead.bytes} payload bytes, got ${bytes.length}`);
    }
    const view = viewOf(bytes);
    const count = memoryHead.get(view, 0);
    if (count > MAX_MEMORY_REGIONS) {
      refuse(`Expected at most ${MAX_MEMORY_REGIONS} memory regions, got ${count}`);
    }
    checkSize(bytes, [memoryBytes(count), memoryBytes(MAX_MEMORY_REGIONS)], refuse);
    return {
      regions: Array.from({ length: count }, (_, i) => memoryRegion.get(view, memoryBytes(i))),
    };
  },
};

/** Size of a table with this number of regions. */
function memoryBytes(regions: number): number {
  return memoryHead.bytes + regions * memoryRegion.bytes;
}

const wholeLog = fixed(struct<Log>({ size: u64, offset: u64 }), [16]);

const log: PayloadCodec<Log> = {
  ...wholeLog,
  decode: (bytes, refuse) => {
    checkSize(bytes, [16, 8], refuse);
    return bytes.length === 16
      ? wholeLog.decode(bytes, refuse)
      : { size: 0n, offset: u64.get(viewOf(bytes), 0) };
  },
};

const configHead = struct<Omit<Config, "data">>({ offset: u32, size: u32, flags: u32 });

const config: PayloadCodec<Config> = {
  encode: ({ data, ...head }) => {
    if (data.length !== head.size || data.length > MAX_CONFIG_BYTES) {
      throw new RangeError(
        `Expected as many config bytes as size says and at most ${MAX_CONFIG_BYTES}, got ${data.length} with size ${head.size}`,
      );
    }
    const bytes = new Uint8Array(configHead.bytes + data.length);
    configHead.set(viewOf(bytes), 0, head);
    bytes.set(data, configHead.bytes);
    return bytes;
  },
  decode: (bytes, refuse) => {
    if (bytes.length < configHead.bytes) {
      refuse(`Expected at least ${configHead.bytes} payload bytes, got ${bytes.length}`);
    }
    const head = configHead.get(viewOf(bytes), 0);
    if (head.size > MAX_CONFIG_BYTES) {
      refuse(`Expected at most ${MAX_CONFIG_BYTES} config bytes, got ${head.size}`);
    }
    checkSize(bytes, [configHead.bytes + head.size], refuse);
    return { ...head, data: bytes.slice(configHead.bytes) };
  },
};

const configReply: PayloadCodec<Config> = {
  ...config,
  decode: (bytes, refuse) =>
    // libvhost-user's form of failure: a reply without any payload.
    bytes.length === 0
      ? { offset: 0, size: 0, flags: 0, data: new Uint8Array() }
      : config.decode(bytes, refuse),
};

const VRING_INDEX_MASK = 0xffn;
const VRING_NO_FD = 0x100n;

function vringWord({ index, noFd }: VringFd): bigint {
  if (!Number.isInteger(index) || index < 0 || index > 0xff) {
    throw new RangeError(`Expected a vring index from 0 to 255, got ${index}`);
  }
  return BigInt(index) | (noFd ? VRING_NO_FD : 0n);
}

function fromVringWord(word: bigint, refuse: Refuse): VringFd {
  if ((word & ~(VRING_INDEX_MASK | VRING_NO_FD)) !== 0n) {
    refuse(`Expected no bits above bit 8, got 0x${word.toString(16)}`);
  }
  return { index: Number(word & VRING_INDEX_MASK), noFd: (word & VRING_NO_FD) !== 0n };
}

const MAP_READ_WRITE = 1n;

const payloads: { readonly [K in PayloadKind]: PayloadCodec<PayloadValues[K]> } = {
  empty: fixed(struct<Empty>({}), [0]),
  u64: fixed(u64Payload, [8]),
  optionalU64: fixed(u64Payload, [8, 0]),
  vringState: fixed(struct<VringState>({ index: u32, num: u32 }), [8]),
  vringAddress: fixed(
    struct<VringAddress>({
      index: u32,
      flags: u32,
      descriptor: u64,
      used: u64,
      available: u64,
      log: u64,
    }),
    [40],
    ({ flags }, refuse) => {
      if ((flags & ~vringAddressFlags.LOG) !== 0) {
        refuse(`Expected flags 0 or 1, got 0x${flags.toString(16)}`);
      }
    },
  ),
  memory,
  memoryRegion: fixed(
    struct<SingleMemoryRegion>({ region: padded(memoryRegion, { before: 8 }) }),
    [40],
  ),
  log,
  iotlb: fixed(
    struct<Iotlb>({ iova: u64, size: u64, userAddress: u64, permission: u8, type: u8 }),
    [32, 26],
    ({ permission, type }, refuse) => {
      if (permission > 3) {
        refuse(`Expected a permission from 0 to 3, got ${permission}`);
      }
      if (type < 1 || type > 4) {
        refuse(`Expected an IOTLB message type from 1 to 4, got ${type}`);
      }
    },
  ),
  config,
  configReply,
  vringFd: converted(
    fixed(u64Payload, [8]),
    ({ value }, refuse) => fromVringWord(value, refuse),
    (value) => ({ value: vringWord(value) }),
  ),
  vringArea: converted(
    fixed(struct({ word: u64, size: u64, offset: u64 }), [24]),
    ({ word, ...place }, refuse): VringArea => ({ ...fromVringWord(word, refuse), ...place }),
    ({ index, noFd, ...place }) => ({ word: vringWord({ index, noFd }), ...place }),
  ),
  inflight: fixed(
    struct<Inflight>({ mmapSize: u64, mmapOffset: u64, numQueues: u16, queueSize: u16 }),
    // QEMU takes 24 only, and answers and sends 24.
    [24, 20],
  ),
  deviceState: fixed(
    struct<DeviceState>({ direction: u32, phase: u32 }),
    [8],
    ({ direction, phase }, refuse) => {
      if (direction > 1) {
        refuse(`Expected direction 0 or 1, got ${direction}`);
      }
      if (phase !== 0) refuse(`Expected phase 0, got ${phase}`);
    },
  ),
  shared: fixed(struct<Shared>({ uuid: byteArray(16) }), [16]),
  cryptoSession,
  cryptoSessionReply,
  mmap: converted(
    fixed(
      struct({
        shmid: padded(u8, { after: 7 }),
        fdOffset: u64,
        shmOffset: u64,
        length: u64,
        flags: u64,
      }),
      [40],
      ({ flags }, refuse) => {
        if ((flags & ~MAP_READ_WRITE) !== 0n) {
          refuse(`Expected flags 0 or 1, got 0x${flags.toString(16)}`);
        }
      },
    ),
    ({ flags, ...rest }): Mmap => ({ ...rest, writable: flags === MAP_READ_WRITE }),
    ({ writable, ...rest }) => ({ ...rest, flags: writable ? MAP_READ_WRITE : 0n }),
  ),
};

/**
 * Encodes a payload without its header.
 *
 * @param kind The kind of payload
 * @param value Its value; other properties of the object are ignored
 * @returns A new array of bytes, the caller's own
 * @throws {RangeError} If a value does not fit its field. Reserved bits are not checked, so that a
 * test can send what is wrong.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { encodePayload } from "./mod.ts";
 *
 * const bytes = encodePayload("vringState", { index: 1, num: 256 });
 * assertEquals([...bytes], [1, 0, 0, 0, 0, 1, 0, 0]);
 * ```
 */
export function encodePayload<K extends PayloadKind>(
  kind: K,
  value: PayloadValues[K],
): Uint8Array {
  return payloads[kind].encode(value);
}

/**
 * Decodes a payload without its header. What is returned is independent of `bytes`, which may be
 * used again.
 *
 * @param kind The kind of payload
 * @param bytes The whole payload
 * @param request The request's name, for the error
 * @returns Its value
 * @throws {ProtocolError} With scope "message", for a wrong size or content
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { decodePayload } from "./mod.ts";
 *
 * const bytes = new Uint8Array([2, 1, 0, 0, 0, 0, 0, 0]);
 * assertEquals(decodePayload("vringFd", bytes), { index: 2, noFd: true });
 * ```
 */
export function decodePayload<K extends PayloadKind>(
  kind: K,
  bytes: Uint8Array,
  request?: string,
): PayloadValues[K] {
  return payloads[kind].decode(bytes, (message) => {
    throw new ProtocolError("message", message, request);
  });
}
