/** Memory regions in one SET_MEM_TABLE: `VHOST_MEMORY_BASELINE_NREGIONS`. */
export const MAX_MEMORY_REGIONS = 8;

/** Bytes of config space in one message: `VHOST_USER_MAX_CONFIG_SIZE` of QEMU and libvhost-user. */
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
   * Size, next index, or 0 and 1, by request. For a packed virtqueue's base: available index and
   * wrap counter in the lower, used ones in the upper half.
   */
  num: number;
}

/** `flags` of a {@linkcode VringAddress}. */
export const vringAddressFlags = {
  /** Writes to the used ring are to be logged from `log` on: bit 0. */
  LOG: 1,
} as const;

/**
 * Where the parts of a ring lie: user addresses of the front-end, or I/O virtual addresses once
 * ACCESS_PLATFORM is negotiated. Their alignment is not checked here.
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
 * One region of guest memory. All are bytes. Whether a region is empty, wraps around or overlaps
 * another is not checked here.
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
 * Front-ends without LOG_SHMFD may send a bare address of their own process instead, which is of no
 * use here: it is read as size 0 with that address as offset.
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
 * A piece of config space. GET_CONFIG carries `size` bytes without meaning in the request too: real
 * front-ends send them, and the reply is as long.
 *
 * A reply whose data is empty says that the access failed.
 */
export interface Config {
  /** Offset of the first byte in the config space. */
  offset: number;
  /** Size of `data` in bytes, at most {@linkcode MAX_CONFIG_BYTES}. */
  size: number;
  /**
   * 0 for a driver's access, 1 for live migration. (rust-vmm's front-end sends 1 and 2 for the
   * same, so nothing is refused here.)
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
 * `opCode` of an asymmetric session: VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION. Every other one is
 * symmetric.
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
 * A session to create, laid out as QEMU since 8.1 has it in memory on a 64-bit machine
 * (hw/virtio/vhost-user.c, `VhostUserCryptoSession`, 1072 bytes). The pointers in it are of the
 * front-end's process: ignored, and written as 0.
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
   * 8 bytes and 32 for each region; or 264, as the specification has it, which no front-end is
   * known.
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
