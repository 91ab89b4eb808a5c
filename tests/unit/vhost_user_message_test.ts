import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { concat } from "@std/bytes";
import fc from "fast-check";
import {
  AKCIPHER_CREATE_SESSION,
  backendMessages,
  backendRequests,
  decodeHeader,
  encodePayload,
  type FdRule,
  frontendMessages,
  type FrontendRequest,
  frontendRequests,
  type Header,
  HEADER_BYTES,
  MAX_FDS,
  MAX_PAYLOAD_BYTES,
  type MessageCodec,
  type PayloadKind,
  type PayloadValues,
  ProtocolError,
  type RequestRule,
  type RequestTable,
} from "../../src/vhost_user/mod.ts";

/** fc.record() of plain objects: assertEquals() compares prototypes too. */
const record = <T extends object>(
  model: { [K in keyof T]: fc.Arbitrary<T[K]> },
): fc.Arbitrary<T> => fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>;

const u8 = () => fc.integer({ min: 0, max: 0xff });
const u16 = () => fc.integer({ min: 0, max: 0xffff });
const u32 = () => fc.integer({ min: 0, max: 0xffffffff });
const u64 = () => fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const i64 = () => fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n });
const bytes = (maxLength: number, minLength = 0) => fc.uint8Array({ minLength, maxLength });

const region = () =>
  record({
    guestAddress: u64(),
    size: u64(),
    userAddress: u64(),
    mmapOffset: u64(),
  });

const config = () =>
  fc.tuple(u32(), u32(), bytes(256)).map(([offset, flags, data]) => ({
    offset,
    size: data.length,
    flags,
    data,
  }));

/** All values of a payload. */
const values: {
  [K in PayloadKind]: () => fc.Arbitrary<PayloadValues[K]>;
} = {
  empty: () => fc.constant({}),
  u64: () => record({ value: u64() }),
  optionalU64: () => record({ value: u64() }),
  vringState: () => record({ index: u32(), num: u32() }),
  vringAddress: () =>
    record({
      index: u32(),
      flags: fc.constantFrom(0, 1),
      descriptor: u64(),
      used: u64(),
      available: u64(),
      log: u64(),
    }),
  memory: () => record({ regions: fc.array(region(), { maxLength: 8 }) }),
  memoryRegion: () => record({ region: region() }),
  log: () => record({ size: u64(), offset: u64() }),
  iotlb: () =>
    record({
      iova: u64(),
      size: u64(),
      userAddress: u64(),
      permission: fc.integer({ min: 0, max: 3 }),
      type: fc.integer({ min: 1, max: 4 }),
    }),
  config,
  configReply: config,
  vringFd: () => record({ index: u8(), noFd: fc.boolean() }),
  vringArea: () => record({ index: u8(), noFd: fc.boolean(), size: u64(), offset: u64() }),
  inflight: () =>
    record({
      mmapSize: fc.oneof(fc.constant(0n), u64()),
      mmapOffset: u64(),
      numQueues: u16(),
      queueSize: u16(),
    }),
  deviceState: () => record({ direction: fc.constantFrom(0, 1), phase: fc.constant(0) }),
  shared: () => record({ uuid: bytes(16, 16) }),
  cryptoSession: () =>
    fc.oneof(
      record({
        kind: fc.constant("symmetric" as const),
        opCode: u64().filter((opCode) => opCode !== AKCIPHER_CREATE_SESSION),
        cipherAlgorithm: u32(),
        hashAlgorithm: u32(),
        hashResultBytes: u32(),
        additionalBytes: u32(),
        operation: u8(),
        direction: u8(),
        hashMode: u8(),
        chainOrder: u8(),
        cipherKey: bytes(64),
        authKey: bytes(512),
        sessionId: i64(),
      }),
      record({
        kind: fc.constant("asymmetric" as const),
        opCode: fc.constant(AKCIPHER_CREATE_SESSION),
        algorithm: u32(),
        keyType: u32(),
        rsaPadding: u32(),
        rsaHash: u32(),
        key: bytes(1024),
        sessionId: i64(),
      }),
    ),
  cryptoSessionReply: () => record({ sessionId: i64() }),
  mmap: () =>
    record({
      shmid: u8(),
      fdOffset: u64(),
      shmOffset: u64(),
      length: u64(),
      writable: fc.boolean(),
    }),
};

/** Every legal value of a payload, as this request limits it. */
function bodies(kind: PayloadKind, maxNum?: number): fc.Arbitrary<object> {
  if (maxNum === undefined) return values[kind]();
  return record({ index: u32(), num: fc.integer({ min: 0, max: maxNum }) });
}

/** The valid numbers of fds, by the specification. */
function rightFdCounts(rule: FdRule, body: object): number[] {
  switch (rule) {
    case "none":
      return [0];
    case "one":
      return [1];
    case "optional":
      return [0, 1];
    case "perRegion":
      return [(body as PayloadValues["memory"]).regions.length];
    case "unlessNoFd":
      return (body as PayloadValues["vringFd"]).noFd ? [0] : [1];
    case "ifMapped":
      return (body as PayloadValues["inflight"]).mmapSize === 0n ? [0] : [1];
  }
}

function split(message: Uint8Array): [Header, Uint8Array] {
  return [
    decodeHeader(message.subarray(0, HEADER_BYTES)),
    message.subarray(HEADER_BYTES),
  ];
}

/** A codec for requests by any name. */
type AnyCodec =
  & Pick<
    MessageCodec<RequestTable>,
    "encode" | "decode" | "encodeAck" | "decodeAck"
  >
  & {
    encodeReply(name: string, body: object): Uint8Array;
    decodeReply(name: string, header: Header, payload: Uint8Array, fds: number): object;
  };

/** Both directions of the protocol, for tests that are the same for both. */
const directions: { title: string; table: Record<string, RequestRule>; codec: AnyCodec }[] = [
  {
    title: "frontendMessages",
    table: frontendRequests,
    codec: frontendMessages as unknown as AnyCodec,
  },
  {
    title: "backendMessages",
    table: backendRequests,
    codec: backendMessages as unknown as AnyCodec,
  },
];

const runs = { numRuns: 50 };

/** One legal body, the same on each run. */
function sampleBody(rule: RequestRule): object {
  return fc.sample(bodies(rule.payload, rule.maxNum), { numRuns: 1, seed: 1 })[0];
}

function refuses(
  scope: "stream" | "message",
  name: string | undefined,
  decode: () => unknown,
  includes?: string,
) {
  const error = assertThrows(decode, ProtocolError, includes);
  assertEquals(error.scope, scope);
  assertEquals(error.request, name);
}

for (const { title, table, codec } of directions) {
  for (const [name, rule] of Object.entries(table)) {
    Deno.test(`${title}.decode() reads what was encoded: ${name}`, () => {
      fc.assert(
        fc.property(
          bodies(rule.payload, rule.maxNum),
          fc.boolean(),
          (body, needReply) => {
            const message = { request: name, ...body } as never;
            const [header, payload] = split(codec.encode(message, { needReply }));
            assertEquals(header, {
              id: rule.id,
              version: 1,
              reply: false,
              needReply,
              size: payload.length,
            });
            for (const fdCount of rightFdCounts(rule.fds ?? "none", body)) {
              assertEquals(codec.decode(header, payload, fdCount), message);
            }
          },
        ),
        runs,
      );
    });

    Deno.test(`${title}.decode() refuses a wrong number of fds: ${name}`, () => {
      fc.assert(
        fc.property(bodies(rule.payload, rule.maxNum), (body) => {
          const [header, payload] = split(codec.encode({ request: name, ...body } as never));
          const right = rightFdCounts(rule.fds ?? "none", body);
          for (let fdCount = 0; fdCount <= MAX_FDS + 1; fdCount++) {
            if (right.includes(fdCount)) continue;
            refuses(
              "message",
              name,
              () => codec.decode(header, payload, fdCount),
              `file descriptors, got ${fdCount}`,
            );
          }
        }),
        runs,
      );
    });

    Deno.test(`${title}.decode() refuses a payload that is too short or too long: ${name}`, () => {
      const body = sampleBody(rule);
      const [header, payload] = split(codec.encode({ request: name, ...body } as never));
      const [fdCount] = rightFdCounts(rule.fds ?? "none", body);
      const longer = concat([payload, new Uint8Array(1)]);
      // These kinds have a second legal size: see payloads.ts.
      const legal: Partial<Record<PayloadKind, number>> = {
        log: 8,
        iotlb: 26,
        inflight: 20,
        memory: 264,
      };
      for (let size = 0; size <= longer.length; size++) {
        if (size === payload.length || size === legal[rule.payload]) continue;
        refuses(
          "message",
          name,
          () => codec.decode({ ...header, size }, longer.subarray(0, size), fdCount),
        );
      }
    });

    Deno.test(`${title}.decode() refuses a reply: ${name}`, () => {
      const body = sampleBody(rule);
      const [header, payload] = split(codec.encode({ request: name, ...body } as never));
      const [fdCount] = rightFdCounts(rule.fds ?? "none", body);
      refuses(
        "message",
        name,
        () => codec.decode({ ...header, reply: true }, payload, fdCount),
        "Expected a request, got a reply",
      );
    });

    Deno.test(`${title} reads its acknowledgement: ${name}`, () => {
      for (const value of [0n, 1n, (1n << 64n) - 1n]) {
        const message = codec.encodeAck(name, value);
        const [header, payload] = split(message);
        assertEquals(header, {
          id: rule.id,
          version: 1,
          reply: true,
          needReply: false,
          size: 8,
        });
        assertEquals(codec.decodeAck(name, header, payload, 0), value);
        assertEquals(codec.encodeAck(rule.id, value), message);
        refuses("message", name, () => codec.decodeAck(name, header, payload, 1));
        refuses(
          "message",
          name,
          () => codec.decodeAck(name, { ...header, size: 7 }, payload.subarray(1), 0),
        );
      }
    });

    const { reply } = rule;
    if (reply === undefined) {
      Deno.test(`${title} has no reply of its own: ${name}`, () => {
        const [header, payload] = split(codec.encodeAck(name, 0n));
        assertThrows(() => codec.encodeReply(name, { value: 0n }), RangeError);
        assertThrows(() => codec.decodeReply(name, header, payload, 0), RangeError);
      });
      continue;
    }

    Deno.test(`${title} reads its reply: ${name}`, () => {
      fc.assert(
        fc.property(bodies(reply), (body) => {
          const [header, payload] = split(codec.encodeReply(name, body));
          assertEquals(header, {
            id: rule.id,
            version: 1,
            reply: true,
            needReply: false,
            size: payload.length,
          });
          const right = rightFdCounts(rule.replyFds ?? "none", body);
          for (let fdCount = 0; fdCount <= 2; fdCount++) {
            const decode = () => codec.decodeReply(name, header, payload, fdCount);
            if (right.includes(fdCount)) assertEquals(decode(), body);
            else refuses("message", name, decode, "file descriptors");
          }
        }),
        runs,
      );
    });

    Deno.test(`${title} refuses a wrong reply: ${name}`, () => {
      const body = fc.sample(values[reply]() as fc.Arbitrary<object>, {
        numRuns: 1,
        seed: 1,
      })[0];
      const [header, payload] = split(codec.encodeReply(name, body));
      const [fdCount] = rightFdCounts(rule.replyFds ?? "none", body);
      const longer = new Uint8Array(payload.length + 1);
      const decode = (header: Header, payload: Uint8Array) => () =>
        codec.decodeReply(name, header, payload, fdCount);
      refuses("stream", name, decode({ ...header, reply: false }, payload));
      refuses("stream", name, decode({ ...header, id: 99 }, payload));
      refuses("stream", name, decode(header, longer));
      refuses(
        "message",
        name,
        decode({ ...header, size: longer.length }, longer),
      );
    });
  }

  Deno.test(`${title}.decode() refuses unknown requests`, () => {
    const last = Object.keys(table).length;
    for (const id of [0, last + 1, 0x7fffffff, 0xffffffff]) {
      const header = { id, version: 1, reply: false, needReply: false, size: 3 };
      refuses(
        "message",
        undefined,
        () => codec.decode(header, new Uint8Array(3), 0),
        `Unknown request ${id}`,
      );
    }
  });

  Deno.test(`${title}.decode() refuses a payload shorter than the header says`, () => {
    const header = { id: 4, version: 1, reply: false, needReply: false, size: 8 };
    refuses(
      "stream",
      Object.keys(table)[3],
      () => codec.decode(header, new Uint8Array(7), 0),
      "Expected 8 payload bytes as the header says, got 7",
    );
  });

  Deno.test(`${title}.decode() throws ProtocolError or returns, whatever the bytes`, () => {
    const last = Object.keys(table).length;
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: last + 1 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.integer({ min: 0, max: 9 }),
        fc.boolean(),
        (id, payload, fdCount, reply) => {
          const size = payload.length;
          const header = { id, version: 1, reply, needReply: false, size };
          try {
            codec.decode(header, payload, fdCount);
          } catch (error) {
            assertInstanceOf(error, ProtocolError);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
}

Deno.test("frontendMessages.decode() refuses a num beyond what the request allows", () => {
  const state = (num: number) => encodePayload("vringState", { index: 0, num });
  const decode = (request: FrontendRequest, num: number) => () =>
    frontendMessages.decode(
      {
        id: frontendRequests[request].id,
        version: 1,
        reply: false,
        needReply: false,
        size: 8,
      },
      state(num),
      0,
    );
  const words = "Expected num to be at most";
  refuses("message", "SET_VRING_ENABLE", decode("SET_VRING_ENABLE", 2), words);
  refuses("message", "SET_VRING_ENDIAN", decode("SET_VRING_ENDIAN", 2), words);
  refuses("message", "VRING_KICK", decode("VRING_KICK", 1), words);
  // Some front-ends do not set it, which must not make a stop fail.
  assertEquals(decode("GET_VRING_BASE", 0xdeadbeef)().request, "GET_VRING_BASE");
});

Deno.test("frontendMessages.decode() narrows to the fields of the request", () => {
  const [header, payload] = split(
    frontendMessages.encode({ request: "SET_VRING_NUM", index: 1, num: 128 }),
  );
  const message = frontendMessages.decode(header, payload, 0);
  assert(message.request === "SET_VRING_NUM");
  const num: number = message.num;
  assertEquals(num, 128);
});

Deno.test("frontendMessages.decode() reads QEMU's end of a postcopy table", () => {
  const header = { id: 5, version: 1, reply: false, needReply: false, size: 8 };
  assertEquals(frontendMessages.decode(header, new Uint8Array(8), 0), {
    request: "SET_MEM_TABLE",
    regions: [],
  });
});

Deno.test("frontendMessages.encodeReply() answers GET_CONFIG with the requested number of bytes", () => {
  const data = new Uint8Array([1, 2, 3, 4]);
  const body = { offset: 8, size: 4, flags: 0, data };
  assertEquals(
    [...frontendMessages.encodeReply("GET_CONFIG", body)],
    // deno-fmt-ignore
    [24, 0, 0, 0,  5, 0, 0, 0,  16, 0, 0, 0,
     8, 0, 0, 0,  4, 0, 0, 0,  0, 0, 0, 0,  1, 2, 3, 4],
  );
});

Deno.test("frontendMessages.encodeAck() answers an unknown request, by its number", () => {
  assertEquals(
    [...frontendMessages.encodeAck(44, 1n)],
    [44, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
  );
});

const header = (id: number, flags: number, size: number) =>
  new Uint8Array(new Uint32Array([id, flags, size]).buffer);

Deno.test("decodeHeader() reads id, flags and size", () => {
  assertEquals(decodeHeader(header(0xfffffffe, 0xd, MAX_PAYLOAD_BYTES)), {
    id: 0xfffffffe,
    version: 1,
    reply: true,
    needReply: true,
    size: MAX_PAYLOAD_BYTES,
  });
});

Deno.test("decodeHeader() refuses another version", () => {
  for (const version of [0, 2, 3]) {
    refuses(
      "stream",
      undefined,
      () => decodeHeader(header(1, version, 0)),
      `Expected protocol version 1, got ${version}`,
    );
  }
});

Deno.test("decodeHeader() refuses reserved flags", () => {
  for (let bit = 4; bit < 32; bit++) {
    refuses(
      "stream",
      undefined,
      () => decodeHeader(header(1, (1 << bit | 1) >>> 0, 0)),
      "above bit 3",
    );
  }
});

Deno.test("decodeHeader() refuses a payload over the limit", () => {
  for (const size of [MAX_PAYLOAD_BYTES + 1, 0xffffffff]) {
    refuses(
      "stream",
      undefined,
      () => decodeHeader(header(1, 1, size)),
      `Expected at most ${MAX_PAYLOAD_BYTES} payload bytes, got ${size}`,
    );
  }
});

Deno.test("decodeHeader() refuses anything but 12 bytes", () => {
  for (const length of [0, 11, 13]) {
    refuses(
      "stream",
      undefined,
      () => decodeHeader(new Uint8Array(length)),
      `Expected a header of 12 bytes, got ${length}`,
    );
  }
});
