import { assertEquals, assertThrows } from "@std/assert";
import { concat } from "@std/bytes";
import {
  AKCIPHER_CREATE_SESSION,
  type Config,
  type CryptoSession,
  decodePayload,
  encodePayload,
  type MemoryRegion,
  type PayloadKind,
  type PayloadValues,
  ProtocolError,
} from "../../src/vhost_user/mod.ts";

/** Bytes from hexadecimal digits; spaces are for the reader. */
function hex(text: string): Uint8Array {
  const digits = text.replaceAll(/\s/g, "");
  return Uint8Array.from(
    { length: digits.length / 2 },
    (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16),
  );
}

const zeros = (bytes: number) => "00".repeat(bytes);

const region: MemoryRegion = {
  guestAddress: 0x1_0000_0000n,
  size: 0x4000_0000n,
  userAddress: 0x7f12_3456_7000n,
  mmapOffset: 0xc000_0000n,
};
const regionHex = `
  0000000001000000 0000004000000000 0070563412 7f0000 000000c000000000`;

const symmetric: CryptoSession = {
  kind: "symmetric",
  opCode: 2n,
  cipherAlgorithm: 3,
  hashAlgorithm: 4,
  hashResultBytes: 32,
  additionalBytes: 16,
  operation: 1,
  direction: 2,
  hashMode: 3,
  chainOrder: 4,
  cipherKey: hex("a1a2a3"),
  authKey: hex("b1b2"),
  sessionId: -1n,
};
const asymmetric: CryptoSession = {
  kind: "asymmetric",
  opCode: AKCIPHER_CREATE_SESSION,
  algorithm: 1,
  keyType: 2,
  rsaPadding: 3,
  rsaHash: 4,
  key: hex("c1c2c3c4"),
  sessionId: 7n,
};

type Known = {
  [K in PayloadKind]: [kind: K, value: PayloadValues[K], bytes: string];
}[PayloadKind];

/** Computed by hand from the C structures. */
const known: Known[] = [
  ["empty", {}, ""],
  ["u64", { value: 0x0123_4567_89ab_cdefn }, "efcdab8967452301"],
  ["optionalU64", { value: 1n }, "0100000000000000"],
  ["vringState", { index: 2, num: 0xfffe0100 }, "02000000 0001feff"],
  [
    "vringAddress",
    {
      index: 1,
      flags: 1,
      descriptor: 0x1000n,
      used: 0x2004n,
      available: 0x3002n,
      log: 0xffff_ffff_ffff_fffcn,
    },
    `01000000 01000000 0010000000000000 0420000000000000
     0230000000000000 fcffffffffffffff`,
  ],
  ["memory", { regions: [] }, "00000000 00000000"],
  ["memory", { regions: [region] }, `01000000 00000000 ${regionHex}`],
  [
    "memory",
    { regions: Array.from({ length: 8 }, () => region) },
    `08000000 00000000 ${regionHex.repeat(8)}`,
  ],
  ["memoryRegion", { region }, `0000000000000000 ${regionHex}`],
  ["log", { size: 0x8000n, offset: 1n }, "0080000000000000 0100000000000000"],
  [
    "iotlb",
    { iova: 0x1000n, size: 0x2000n, userAddress: 3n, permission: 3, type: 2 },
    `0010000000000000 0020000000000000 0300000000000000 03 02 000000000000`,
  ],
  [
    "config",
    { offset: 4, size: 3, flags: 1, data: hex("0a0b0c") },
    "04000000 03000000 01000000 0a0b0c",
  ],
  [
    "configReply",
    { offset: 4, size: 0, flags: 0, data: hex("") },
    "04000000 00000000 00000000",
  ],
  ["vringFd", { index: 255, noFd: false }, "ff00000000000000"],
  ["vringFd", { index: 2, noFd: true }, "0201000000000000"],
  [
    "vringArea",
    { index: 1, noFd: true, size: 0x1000n, offset: 0x3000n },
    "0101000000000000 0010000000000000 0030000000000000",
  ],
  [
    "inflight",
    { mmapSize: 0x1000n, mmapOffset: 0n, numQueues: 4, queueSize: 256 },
    "0010000000000000 0000000000000000 0400 0001 00000000",
  ],
  ["deviceState", { direction: 1, phase: 0 }, "01000000 00000000"],
  [
    "shared",
    { uuid: hex("000102030405060708090a0b0c0d0e0f") },
    "000102030405060708090a0b0c0d0e0f",
  ],
  [
    "cryptoSession",
    symmetric,
    `0200000000000000 03000000 03000000 04000000 20000000 02000000 10000000
     01 02 03 04 ${zeros(4)} ${zeros(16)} a1a2a3 ${zeros(61)} b1b2 ${zeros(510)}
     ${zeros(432)} ffffffffffffffff`,
  ],
  [
    "cryptoSession",
    asymmetric,
    `0404000000000000 01000000 02000000 04000000 ${zeros(4)} ${zeros(8)}
     03000000 04000000 c1c2c3c4 ${zeros(1020)} 0700000000000000`,
  ],
  [
    "cryptoSessionReply",
    { sessionId: -2n },
    `${zeros(1064)} feffffffffffffff`,
  ],
  [
    "mmap",
    {
      shmid: 3,
      fdOffset: 0x1000n,
      shmOffset: 0x2000n,
      length: 0x3000n,
      writable: true,
    },
    `03 00000000000000 0010000000000000 0020000000000000
     0030000000000000 0100000000000000`,
  ],
];

/** Other accepted sizes; payloads.ts has the reasons. */
const alsoAccepted: Partial<Record<PayloadKind, number[]>> = {
  optionalU64: [0],
  log: [8],
  iotlb: [26],
  inflight: [20],
  configReply: [0],
  memory: [264],
};

function encode(...[kind, value]: Known): Uint8Array {
  return encodePayload(kind, value as PayloadValues[typeof kind]);
}

function refuses(kind: PayloadKind, bytes: Uint8Array, includes: string) {
  const error = assertThrows(
    () => decodePayload(kind, bytes, "SOME_REQUEST"),
    ProtocolError,
    includes,
  );
  assertEquals(error.scope, "message");
  assertEquals(error.request, "SOME_REQUEST");
}

for (const [i, row] of known.entries()) {
  const [kind, value, text] = row;
  const bytes = hex(text);
  const title = `${kind} (row ${i}, ${bytes.length} bytes)`;

  Deno.test(`encodePayload() writes the known bytes of ${title}`, () => {
    assertEquals(encode(...row), bytes);
  });

  Deno.test(`decodePayload() reads the known bytes of ${title}`, () => {
    assertEquals<unknown>(decodePayload(kind, bytes), value);
  });

  Deno.test(`decodePayload() refuses every shorter ${title}`, () => {
    for (let length = 0; length < bytes.length; length++) {
      if (alsoAccepted[kind]?.includes(length)) continue;
      refuses(kind, bytes.subarray(0, length), `got ${length}`);
    }
  });

  Deno.test(`decodePayload() refuses a longer ${title}`, () => {
    const longer = concat([bytes, new Uint8Array(1)]);
    refuses(kind, longer, `got ${longer.length}`);
  });
}

Deno.test("the known payloads cover every kind", () => {
  const kinds: Record<PayloadKind, true> = {
    empty: true,
    u64: true,
    optionalU64: true,
    vringState: true,
    vringAddress: true,
    memory: true,
    memoryRegion: true,
    log: true,
    iotlb: true,
    config: true,
    configReply: true,
    vringFd: true,
    vringArea: true,
    inflight: true,
    deviceState: true,
    shared: true,
    cryptoSession: true,
    cryptoSessionReply: true,
    mmap: true,
  };
  assertEquals(
    [...new Set(known.map(([kind]) => kind as string))].toSorted(),
    Object.keys(kinds).toSorted(),
  );
});

Deno.test("decodePayload() reads bytes in the middle of a larger buffer", () => {
  const buffer = new Uint8Array([9, 9, 9, 1, 0, 0, 0, 2, 0, 0, 0, 9]);
  assertEquals(decodePayload("vringState", buffer.subarray(3, 11)), {
    index: 1,
    num: 2,
  });
});

Deno.test("decodePayload() copies what it returns", () => {
  const bytes = hex("00000000 01000000 00000000 aa");
  const { data }: Config = decodePayload("config", bytes);
  const uuid = hex("000102030405060708090a0b0c0d0e0f");
  const shared = decodePayload("shared", uuid);
  bytes.fill(0);
  uuid.fill(0xff);
  assertEquals(data, hex("aa"));
  assertEquals(shared.uuid[15], 15);
});

Deno.test("decodePayload() reads an in-flight description without padding", () => {
  const bytes = hex("0010000000000000 0000000000000000 0400 0001");
  assertEquals(decodePayload("inflight", bytes).queueSize, 256);
});

Deno.test("decodePayload() reads an IOTLB message without padding", () => {
  const bytes = hex(`${zeros(24)} 01 01`);
  assertEquals(decodePayload("iotlb", bytes).type, 1);
});

Deno.test("decodePayload() reads a bare log address as a log without size", () => {
  assertEquals(decodePayload("log", hex("0010000000000000")), {
    size: 0n,
    offset: 0x1000n,
  });
});

Deno.test("decodePayload() reads an empty SET_LOG_BASE reply as success", () => {
  assertEquals(decodePayload("optionalU64", hex("")), { value: 0n });
});

Deno.test("decodePayload() reads an empty config reply as failure", () => {
  assertEquals(decodePayload("configReply", hex("")).data.length, 0);
  refuses("config", hex(""), "Expected at least 12 payload bytes, got 0");
});

Deno.test("decodePayload() reads a memory table with room for 8 regions", () => {
  const bytes = hex(`01000000 00000000 ${regionHex} ${zeros(7 * 32)}`);
  assertEquals(decodePayload("memory", bytes), { regions: [region] });
});

Deno.test("decodePayload() ignores padding", () => {
  assertEquals(
    decodePayload("memory", hex(`01000000 ffffffff ${regionHex}`)),
    { regions: [region] },
  );
  assertEquals(
    decodePayload("memoryRegion", hex(`ffffffffffffffff ${regionHex}`)),
    { region },
  );
  assertEquals(
    decodePayload("mmap", hex(`01 ffffffffffffff ${zeros(32)}`)).shmid,
    1,
  );
});

Deno.test("decodePayload() refuses more than 8 memory regions", () => {
  refuses(
    "memory",
    hex(`09000000 00000000 ${regionHex.repeat(9)}`),
    "SOME_REQUEST: Expected at most 8 memory regions, got 9",
  );
  refuses("memory", hex("ffffffff 00000000"), "got 4294967295");
});

Deno.test("decodePayload() refuses config data whose size differs from the stated one", () => {
  refuses(
    "config",
    hex("00000000 02000000 00000000 aa"),
    "Expected 14 payload bytes, got 13",
  );
  refuses(
    "config",
    hex("00000000 00000000 00000000 aa"),
    "Expected 12 payload bytes, got 13",
  );
});

Deno.test("decodePayload() refuses more than 256 bytes of config", () => {
  refuses(
    "config",
    hex(`00000000 01010000 00000000 ${zeros(257)}`),
    "Expected at most 256 config bytes, got 257",
  );
  refuses("config", hex("00000000 ffffffff 00000000"), "got 4294967295");
});

Deno.test("decodePayload() refuses reserved bits", () => {
  refuses("vringFd", hex("0002000000000000"), "bits above bit 8, got 0x200");
  refuses("vringFd", hex("0000000000000080"), "bits above bit 8");
  refuses("vringArea", hex(`0002000000000000 ${zeros(16)}`), "above bit 8");
  refuses(
    "vringAddress",
    hex(`00000000 02000000 ${zeros(32)}`),
    "Expected flags 0 or 1, got 0x2",
  );
  refuses("vringAddress", hex(`00000000 00000080 ${zeros(32)}`), "flags");
  refuses("mmap", hex(`${zeros(32)} 0200000000000000`), "flags 0 or 1");
});

Deno.test("decodePayload() refuses undefined values", () => {
  refuses("iotlb", hex(`${zeros(24)} 04 01 ${zeros(6)}`), "permission");
  refuses("iotlb", hex(`${zeros(24)} 00 00 ${zeros(6)}`), "type from 1 to 4");
  refuses("iotlb", hex(`${zeros(24)} 00 05 ${zeros(6)}`), "type from 1 to 4");
  refuses("deviceState", hex("02000000 00000000"), "direction 0 or 1, got 2");
  refuses("deviceState", hex("00000000 01000000"), "phase 0, got 1");
});

Deno.test("decodePayload() refuses crypto keys that do not fit their field", () => {
  const withByte = (session: CryptoSession, offset: number, value: string) => {
    const bytes = encodePayload("cryptoSession", session);
    bytes.set(hex(value), offset);
    return bytes;
  };
  const at = (session: CryptoSession, offset: number, value: string) =>
    decodePayload("cryptoSession", withByte(session, offset, value));
  // The key lengths are at 12, 24 (symmetric) and 16 (asymmetric).
  at(symmetric, 12, "40000000");
  refuses("cryptoSession", withByte(symmetric, 12, "41000000"), "64 bytes");
  at(symmetric, 24, "00020000");
  refuses("cryptoSession", withByte(symmetric, 24, "01020000"), "512 bytes");
  at(asymmetric, 16, "00040000");
  refuses("cryptoSession", withByte(asymmetric, 16, "01040000"), "1024 bytes");
});

Deno.test("decodePayload() ignores the pointers in a crypto session", () => {
  const bytes = encodePayload("cryptoSession", symmetric);
  bytes.fill(0xee, 36, 56);
  assertEquals<unknown>(decodePayload("cryptoSession", bytes), symmetric);
});

Deno.test("encodePayload() throws RangeError for values that do not fit their field", () => {
  const throws = (encode: () => Uint8Array) => assertThrows(encode, RangeError);
  for (const num of [-1, 2 ** 32, 1.5, NaN]) {
    throws(() => encodePayload("vringState", { index: 0, num }));
  }
  for (const value of [-1n, 1n << 64n]) {
    throws(() => encodePayload("u64", { value }));
  }
  for (const index of [-1, 256, 0.5]) {
    throws(() => encodePayload("vringFd", { index, noFd: false }));
  }
  throws(() =>
    encodePayload("memory", {
      regions: Array.from({ length: 9 }, () => region),
    })
  );
  throws(() => encodePayload("config", { offset: 0, size: 2, flags: 0, data: hex("aa") }));
  throws(() =>
    encodePayload("config", {
      offset: 0,
      size: 257,
      flags: 0,
      data: new Uint8Array(257),
    })
  );
  throws(() => encodePayload("shared", { uuid: new Uint8Array(15) }));
  throws(() => encodePayload("cryptoSessionReply", { sessionId: 1n << 63n }));
  throws(() =>
    encodePayload("cryptoSession", {
      ...symmetric,
      cipherKey: new Uint8Array(65),
    })
  );
  throws(() =>
    encodePayload("cryptoSession", {
      ...symmetric,
      opCode: AKCIPHER_CREATE_SESSION,
    })
  );
  throws(() =>
    encodePayload("inflight", {
      mmapSize: 0n,
      mmapOffset: 0n,
      numQueues: 65536,
      queueSize: 0,
    })
  );
});
