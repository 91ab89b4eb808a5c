import { ProtocolError } from "./errors.ts";
import {
  byteArray,
  checkSize,
  type Field,
  i64,
  padded,
  struct,
  u16,
  u32,
  u64,
  u8,
  viewOf,
} from "./wire.ts";

/** Memory regions in one SET_MEM_TABLE: `VHOST_MEMORY_BASELINE_NREGIONS`. */
export const MAX_MEMORY_REGIONS = 8;

/**
 * Bytes of config space in one message: `VHOST_USER_MAX_CONFIG_SIZE` of QEMU
 * and libvhost-user.
 */
export const MAX_CONFIG_BYTES = 256;

/** No payload. */
export type Empty = Record<never, never>;

/** One 64-bit integer. */
export interface U64 {
  /** What it means is up to the request. */
  value: bigint;
}

/** A vring state description. */
export interface VringState {
  /** Index of the virtqueue. */
  index: number;
  /**
   * Size, next index, or 0 and 1, by request. For a packed virtqueue's base:
   * available index and wrap counter in the lower, used ones in the upper half.
   */
  num: number;
}

/** `flags` of a {@linkcode VringAddress}. */
export const vringAddressFlags = {
  /** Writes to the used ring are to be logged from `log` on: bit 0. */
  LOG: 1,
} as const;

/**
 * Where the parts of a ring lie: user addresses of the front-end, or I/O
 * virtual addresses once ACCESS_PLATFORM is negotiated. Their alignment is not
 * checked here.
 */
export interface VringAddress {
  /** Index of the virtqueue. */
  index: number;
  /** See {@linkcode vringAddressFlags}; other bits are refused. */
  flags: number;
  /** Address of the descriptor table. */
  descriptor: bigint;
  /** Address of the used ring. */
  used: bigint;
  /** Address of the available ring. */
  available: bigint;
  /** Guest address at which writes to the used ring are logged. */
  log: bigint;
}

/**
 * One region of guest memory. All are bytes. Whether a region is empty, wraps
 * around or overlaps another is not checked here.
 */
export interface MemoryRegion {
  /** Guest physical address of its first byte. */
  guestAddress: bigint;
  /** Size in bytes. */
  size: bigint;
  /** Address of its first byte in the front-end's process. */
  userAddress: bigint;
  /** Offset of its first byte in the file of its fd. */
  mmapOffset: bigint;
}

/** All memory of the guest, as in SET_MEM_TABLE: one fd per region. */
export interface Memory {
  /** At most {@linkcode MAX_MEMORY_REGIONS}. */
  regions: MemoryRegion[];
}

/** One region to add or to remove. */
export interface SingleMemoryRegion {
  /** For REM_MEM_REG, `mmapOffset` has no meaning. */
  region: MemoryRegion;
}

/**
 * Where the dirty log lies in the file of the fd that comes with it.
 *
 * Front-ends without LOG_SHMFD may send a bare address of their own process
 * instead, which is of no use here: it is read as size 0 with that address as
 * offset.
 */
export interface Log {
  /** Size in bytes: a bit per 4096 bytes of guest memory. */
  size: bigint;
  /** Offset of the bit of guest address 0. */
  offset: bigint;
}

/** An update, invalidation or fault of the IOTLB. */
export interface Iotlb {
  /** I/O virtual address. */
  iova: bigint;
  /** Size in bytes. */
  size: bigint;
  /** The front-end's user address. */
  userAddress: bigint;
  /** 0 none, 1 read, 2 write, 3 both. */
  permission: number;
  /** 1 miss, 2 update, 3 invalidate, 4 access fail. */
  type: number;
}

/**
 * A piece of config space. GET_CONFIG carries `size` bytes without meaning in
 * the request too: real front-ends send them, and the reply is as long.
 *
 * A reply whose data is empty says that the access failed.
 */
export interface Config {
  /** Offset of the first byte in the config space. */
  offset: number;
  /** Size of `data` in bytes, at most {@linkcode MAX_CONFIG_BYTES}. */
  size: number;
  /**
   * 0 for a driver's access, 1 for live migration. (rust-vmm's front-end
   * sends 1 and 2 for the same, so nothing is refused here.)
   */
  flags: number;
  /** The bytes, a copy of the message's. */
  data: Uint8Array;
}

/** A virtqueue and whether an fd for it comes along. */
export interface VringFd {
  /** Index of the virtqueue, 0 to 255. */
  index: number;
  /** No fd: notifications are polled for, or not wanted. */
  noFd: boolean;
}

/** A page of device memory for a virtqueue's notifications. */
export interface VringArea {
  /** Index of the virtqueue, 0 to 255. */
  index: number;
  /** No fd: the notifier that was there is removed. */
  noFd: boolean;
  /** Size of the mapping in bytes: the host's page size. */
  size: bigint;
  /** Offset in the file of the fd. */
  offset: bigint;
}

/** The buffer that records requests in flight. */
export interface Inflight {
  /** Size of the mapping in bytes; 0 in the request for one. */
  mmapSize: bigint;
  /** Offset in the file of the fd. */
  mmapOffset: bigint;
  /** Number of virtqueues. */
  numQueues: number;
  /** Size of each virtqueue, in descriptors. */
  queueSize: number;
}

/** How a device's state is to be transferred. */
export interface DeviceState {
  /** 0 save (to the front-end), 1 load (from the front-end). */
  direction: number;
  /** 0 stopped: the only one there is. */
  phase: number;
}

/** A shared object, by its name. */
export interface Shared {
  /** 16 bytes, the first three parts big-endian. */
  uuid: Uint8Array;
}

/**
 * `opCode` of an asymmetric session: VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION.
 * Every other one is symmetric.
 */
export const AKCIPHER_CREATE_SESSION = 0x404n;

/** A session for ciphers, hashes, MACs and AEAD. */
export interface SymmetricCryptoSession {
  /** Which of the two it is. */
  kind: "symmetric";
  /** As in virtio 1.3, 5.9.7.2.1; anything but {@linkcode AKCIPHER_CREATE_SESSION}. */
  opCode: bigint;
  /** VIRTIO_CRYPTO_CIPHER_*. */
  cipherAlgorithm: number;
  /** VIRTIO_CRYPTO_HASH_* or VIRTIO_CRYPTO_MAC_*. */
  hashAlgorithm: number;
  /** Size of a digest in bytes. */
  hashResultBytes: number;
  /** Size of additional authenticated data in bytes. */
  additionalBytes: number;
  /** VIRTIO_CRYPTO_SYM_OP_*. */
  operation: number;
  /** VIRTIO_CRYPTO_OP_*: 1 encrypt, 2 decrypt. */
  direction: number;
  /** VIRTIO_CRYPTO_SYM_HASH_MODE_*. */
  hashMode: number;
  /** VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_*. */
  chainOrder: number;
  /** At most 64 bytes, a copy. */
  cipherKey: Uint8Array;
  /** At most 512 bytes, a copy. */
  authKey: Uint8Array;
  /** Signed; without meaning in a request. */
  sessionId: bigint;
}

/** A session for public-key ciphers. */
export interface AsymmetricCryptoSession {
  /** Which of the two it is. */
  kind: "asymmetric";
  /** {@linkcode AKCIPHER_CREATE_SESSION}. */
  opCode: bigint;
  /** VIRTIO_CRYPTO_AKCIPHER_*. */
  algorithm: number;
  /** VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_*: 1 public, 2 private. */
  keyType: number;
  /** VIRTIO_CRYPTO_RSA_*_PADDING. */
  rsaPadding: number;
  /** VIRTIO_CRYPTO_RSA_*, a hash. */
  rsaHash: number;
  /** At most 1024 bytes, a copy. */
  key: Uint8Array;
  /** Signed; without meaning in a request. */
  sessionId: bigint;
}

/**
 * A session to create, laid out as QEMU since 8.1 has it in memory on a 64-bit
 * machine (hw/virtio/vhost-user.c, `VhostUserCryptoSession`, 1072 bytes). The
 * pointers in it are of the front-end's process: ignored, and written as 0.
 */
export type CryptoSession = SymmetricCryptoSession | AsymmetricCryptoSession;

/** The answer to a {@linkcode CryptoSession}: all that front-ends read of it. */
export interface CryptoSessionReply {
  /** The new session's number, or negative for failure. */
  sessionId: bigint;
}

/** A piece of a file in one of the device's shared memory regions. */
export interface Mmap {
  /** The region's number, 0 to 255. */
  shmid: number;
  /** Offset in the file, in bytes. */
  fdOffset: bigint;
  /** Offset in the region, in bytes. */
  shmOffset: bigint;
  /** Size in bytes. */
  length: bigint;
  /** Mapped for writing too. Without meaning in SHMEM_UNMAP. */
  writable: boolean;
}

/** The kinds of payload, and the type of value that each is decoded to. */
export interface PayloadValues {
  /** 0 bytes. */
  empty: Empty;
  /** 8 bytes. */
  u64: U64;
  /** 8 bytes, or 0, read as the value 0: back-ends differ in SET_LOG_BASE. */
  optionalU64: U64;
  /** 8 bytes. */
  vringState: VringState;
  /** 40 bytes. */
  vringAddress: VringAddress;
  /**
   * 8 bytes and 32 for each region; or 264, as the specification has it, of
   * which no front-end is known.
   */
  memory: Memory;
  /** 40 bytes: 8 of padding and the region. */
  memoryRegion: SingleMemoryRegion;
  /** 16 bytes, or 8 for the bare address. */
  log: Log;
  /** 32 bytes (a C structure with its padding); 26 are read too. */
  iotlb: Iotlb;
  /** 12 bytes and `size` of data. */
  config: Config;
  /** The same; 0 bytes are read as failure too. */
  configReply: Config;
  /** 8 bytes. */
  vringFd: VringFd;
  /** 24 bytes. */
  vringArea: VringArea;
  /** 24 bytes (a C structure with its padding); 20 are read too. */
  inflight: Inflight;
  /** 8 bytes. */
  deviceState: DeviceState;
  /** 16 bytes. */
  shared: Shared;
  /** 1072 bytes. */
  cryptoSession: CryptoSession;
  /** 1072 bytes. */
  cryptoSessionReply: CryptoSessionReply;
  /** 40 bytes. */
  mmap: Mmap;
}

/** The name of a kind of payload. */
export type PayloadKind = keyof PayloadValues;

/** Throws that a payload's content is wrong. */
type Refuse = (message: string) => never;

interface PayloadCodec<T> {
  encode(value: T): Uint8Array;
  decode(bytes: Uint8Array, request?: string): T;
}

function refuser(request?: string): Refuse {
  return (message) => {
    throw new ProtocolError("message", message, request);
  };
}

/**
 * A payload of fixed layout. The first size is what is written, the others are
 * accepted as well; what a size has beyond the field is padding.
 */
function fixed<T>(
  field: Field<T>,
  sizes: readonly number[],
  check?: (value: T, refuse: Refuse) => void,
): PayloadCodec<T> {
  return {
    encode: (value) => {
      const bytes = new Uint8Array(sizes[0]);
      field.set(viewOf(bytes), 0, value);
      return bytes;
    },
    decode: (bytes, request) => {
      checkSize(bytes, sizes, request);
      const value = field.get(viewOf(bytes), 0);
      check?.(value, refuser(request));
      return value;
    },
  };
}

const u64Payload: Field<U64> = struct<U64>({ value: u64 });

const memoryRegion = struct<MemoryRegion>({
  guestAddress: u64,
  size: u64,
  userAddress: u64,
  mmapOffset: u64,
});

const memoryHead = struct<{ count: number }>({
  count: padded(u32, { after: 4 }),
});
const MAX_MEMORY_BYTES = memoryHead.bytes +
  MAX_MEMORY_REGIONS * memoryRegion.bytes;

const memory: PayloadCodec<Memory> = {
  encode: ({ regions }) => {
    if (regions.length > MAX_MEMORY_REGIONS) {
      throw new RangeError(
        `Expected at most ${MAX_MEMORY_REGIONS} memory regions, got ${regions.length}`,
      );
    }
    const bytes = new Uint8Array(
      memoryHead.bytes + regions.length * memoryRegion.bytes,
    );
    const view = viewOf(bytes);
    memoryHead.set(view, 0, { count: regions.length });
    regions.forEach((region, i) =>
      memoryRegion.set(view, memoryHead.bytes + i * memoryRegion.bytes, region)
    );
    return bytes;
  },
  decode: (bytes, request) => {
    const refuse = refuser(request);
    if (bytes.length < memoryHead.bytes) {
      refuse(
        `Expected at least ${memoryHead.bytes} payload bytes, got ${bytes.length}`,
      );
    }
    const view = viewOf(bytes);
    const { count } = memoryHead.get(view, 0);
    if (count > MAX_MEMORY_REGIONS) {
      refuse(
        `Expected at most ${MAX_MEMORY_REGIONS} memory regions, got ${count}`,
      );
    }
    const sizes = [
      memoryHead.bytes + count * memoryRegion.bytes,
      MAX_MEMORY_BYTES,
    ];
    checkSize(bytes, sizes, request);
    const regions = Array.from(
      { length: count },
      (_, i) => memoryRegion.get(view, memoryHead.bytes + i * memoryRegion.bytes),
    );
    return { regions };
  },
};

const log: PayloadCodec<Log> = {
  ...fixed(struct<Log>({ size: u64, offset: u64 }), [16]),
  decode: (bytes, request) => {
    checkSize(bytes, [16, 8], request);
    const view = viewOf(bytes);
    return bytes.length === 8
      ? { size: 0n, offset: u64.get(view, 0) }
      : { size: u64.get(view, 0), offset: u64.get(view, 8) };
  },
};

const optionalU64: PayloadCodec<U64> = {
  ...fixed(u64Payload, [8]),
  decode: (bytes, request) => {
    checkSize(bytes, [8, 0], request);
    return bytes.length === 0 ? { value: 0n } : u64Payload.get(viewOf(bytes), 0);
  },
};

const configHead = struct<Omit<Config, "data">>({
  offset: u32,
  size: u32,
  flags: u32,
});

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
  decode: (bytes, request) => {
    const refuse = refuser(request);
    if (bytes.length < configHead.bytes) {
      refuse(
        `Expected at least ${configHead.bytes} payload bytes, got ${bytes.length}`,
      );
    }
    const head = configHead.get(viewOf(bytes), 0);
    if (head.size > MAX_CONFIG_BYTES) {
      refuse(
        `Expected at most ${MAX_CONFIG_BYTES} config bytes, got ${head.size}`,
      );
    }
    checkSize(bytes, [configHead.bytes + head.size], request);
    return { ...head, data: bytes.slice(configHead.bytes) };
  },
};

const configReply: PayloadCodec<Config> = {
  ...config,
  decode: (bytes, request) =>
    // libvhost-user's form of failure: a reply without any payload.
    bytes.length === 0
      ? { offset: 0, size: 0, flags: 0, data: new Uint8Array() }
      : config.decode(bytes, request),
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
  return {
    index: Number(word & VRING_INDEX_MASK),
    noFd: (word & VRING_NO_FD) !== 0n,
  };
}

const vringFd: PayloadCodec<VringFd> = {
  encode: (value) => payloads.u64.encode({ value: vringWord(value) }),
  decode: (bytes, request) =>
    fromVringWord(
      payloads.u64.decode(bytes, request).value,
      refuser(request),
    ),
};

const vringAreaWords = fixed(
  struct<{ word: bigint; size: bigint; offset: bigint }>({
    word: u64,
    size: u64,
    offset: u64,
  }),
  [24],
);

const vringArea: PayloadCodec<VringArea> = {
  encode: ({ index, noFd, size, offset }) =>
    vringAreaWords.encode({ word: vringWord({ index, noFd }), size, offset }),
  decode: (bytes, request) => {
    const { word, size, offset } = vringAreaWords.decode(bytes, request);
    return { ...fromVringWord(word, refuser(request)), size, offset };
  },
};

const MAP_READ_WRITE = 1n;

const mmapWords = fixed(
  struct<Omit<Mmap, "writable"> & { flags: bigint }>({
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
);

const mmap: PayloadCodec<Mmap> = {
  encode: ({ writable, ...rest }) =>
    mmapWords.encode({ ...rest, flags: writable ? MAP_READ_WRITE : 0n }),
  decode: (bytes, request) => {
    const { flags, ...rest } = mmapWords.decode(bytes, request);
    return { ...rest, writable: flags === MAP_READ_WRITE };
  },
};

const CRYPTO_SESSION_BYTES = 1072;
const CRYPTO_SESSION_ID_OFFSET = 1064;

const symmetricSetup = struct({
  cipherAlgorithm: u32,
  cipherKeyBytes: u32,
  hashAlgorithm: u32,
  hashResultBytes: u32,
  authKeyBytes: u32,
  additionalBytes: u32,
  operation: u8,
  direction: u8,
  hashMode: u8,
  // 4 bytes up to the alignment of the two pointers that follow.
  chainOrder: padded(u8, { after: 4 + 2 * 8 }),
  cipherKey: byteArray(64),
  authKey: byteArray(512),
});

const asymmetricSetup = struct({
  algorithm: u32,
  keyType: u32,
  // 4 bytes up to the alignment of the pointer that follows.
  keyBytes: padded(u32, { after: 4 + 8 }),
  rsaPadding: u32,
  rsaHash: u32,
  key: byteArray(1024),
});

/** The key at the start of a field of fixed size. */
function takeKey(
  room: Uint8Array,
  bytes: number,
  refuse: Refuse,
): Uint8Array {
  if (bytes > room.length) {
    refuse(`Expected a key of at most ${room.length} bytes, got ${bytes}`);
  }
  return room.slice(0, bytes);
}

/** A key at the start of a field of fixed size. */
function placeKey(key: Uint8Array, bytes: number): Uint8Array {
  if (key.length > bytes) {
    throw new RangeError(
      `Expected a key of at most ${bytes} bytes, got ${key.length}`,
    );
  }
  const room = new Uint8Array(bytes);
  room.set(key);
  return room;
}

const cryptoSession: PayloadCodec<CryptoSession> = {
  encode: (session) => {
    const asymmetric = session.opCode === AKCIPHER_CREATE_SESSION;
    if (asymmetric !== (session.kind === "asymmetric")) {
      throw new RangeError(
        `Expected the operation of ${session.kind} crypto, got 0x${session.opCode.toString(16)}`,
      );
    }
    const bytes = new Uint8Array(CRYPTO_SESSION_BYTES);
    const view = viewOf(bytes);
    u64.set(view, 0, session.opCode);
    i64.set(view, CRYPTO_SESSION_ID_OFFSET, session.sessionId);
    if (session.kind === "symmetric") {
      symmetricSetup.set(view, 8, {
        ...session,
        cipherKeyBytes: session.cipherKey.length,
        authKeyBytes: session.authKey.length,
        cipherKey: placeKey(session.cipherKey, 64),
        authKey: placeKey(session.authKey, 512),
      });
    } else {
      asymmetricSetup.set(view, 8, {
        ...session,
        keyBytes: session.key.length,
        key: placeKey(session.key, 1024),
      });
    }
    return bytes;
  },
  decode: (bytes, request) => {
    checkSize(bytes, [CRYPTO_SESSION_BYTES], request);
    const refuse = refuser(request);
    const view = viewOf(bytes);
    const opCode = u64.get(view, 0);
    const sessionId = i64.get(view, CRYPTO_SESSION_ID_OFFSET);
    if (opCode === AKCIPHER_CREATE_SESSION) {
      const { keyBytes, ...setup } = asymmetricSetup.get(view, 8);
      const key = takeKey(setup.key, keyBytes, refuse);
      return { kind: "asymmetric", opCode, ...setup, key, sessionId };
    }
    const { cipherKeyBytes, authKeyBytes, ...setup } = symmetricSetup.get(
      view,
      8,
    );
    const cipherKey = takeKey(setup.cipherKey, cipherKeyBytes, refuse);
    const authKey = takeKey(setup.authKey, authKeyBytes, refuse);
    return {
      kind: "symmetric",
      opCode,
      ...setup,
      cipherKey,
      authKey,
      sessionId,
    };
  },
};

const payloads: { readonly [K in PayloadKind]: PayloadCodec<PayloadValues[K]> } = {
  empty: fixed(struct<Empty>({}), [0]),
  u64: fixed(u64Payload, [8]),
  optionalU64,
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
    struct<Iotlb>({
      iova: u64,
      size: u64,
      userAddress: u64,
      permission: u8,
      type: u8,
    }),
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
  vringFd,
  vringArea,
  inflight: fixed(
    struct<Inflight>({
      mmapSize: u64,
      mmapOffset: u64,
      numQueues: u16,
      queueSize: u16,
    }),
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
  cryptoSessionReply: fixed(
    struct<CryptoSessionReply>({
      sessionId: padded(i64, { before: CRYPTO_SESSION_ID_OFFSET }),
    }),
    [CRYPTO_SESSION_BYTES],
  ),
  mmap,
};

/**
 * Encodes a payload without its header.
 *
 * @param kind The kind of payload
 * @param value Its value; other properties of the object are ignored
 * @returns A new array of bytes, the caller's own
 * @throws {RangeError} If a value does not fit its field. Reserved bits are not
 * checked, so that a test can send what is wrong.
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
 * Decodes a payload without its header. What is returned is independent of
 * `bytes`, which may be used again.
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
  return payloads[kind].decode(bytes, request);
}
