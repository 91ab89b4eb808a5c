import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  MAX_SEGMENTS,
  REFUSED,
  Request,
  statusOf,
  VIRTIO_BLK_T,
} from "../../backends/blk/request.ts";
import {
  anyDivision,
  type ChainContent,
  header,
  join,
  makeChain,
  segment,
  TestQueue,
  UNTOUCHED,
} from "./lib/blk_chains.ts";

const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = VIRTIO_BLK_T;

function makeRequest(content: ChainContent) {
  const made = makeChain(content);
  return { ...made, request: new Request(made.chain, new TestQueue()) };
}

Deno.test("Request.begin() reads the header in any framing", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 99),
      fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
      fc.uint8Array({ maxLength: 40 }),
      fc.nat(40),
      anyDivision,
      anyDivision,
      (type, sector, data, room, readableParts, writableParts) => {
        const { request, chain } = makeRequest({
          readable: join(header(type, sector), data),
          writableBytes: room + 1,
          readableParts,
          writableParts,
        });
        assertEquals(request.begin(), 0);
        assertEquals(request.type, type);
        assertEquals(BigInt(request.sector), sector);
        const isRead = type === IN || type === GET_ID;
        assertEquals(request.data, isRead ? chain.writable : chain.readable);
        assertEquals(request.dataOffset, isRead ? 0 : 16);
        // The parts stay as they were.
        assertEquals(chain.readable.byteLength, 16 + data.length);
        assertEquals(chain.writable.byteLength, room + 1);
      },
    ),
  );
});

Deno.test("Request.end() writes the status after the data in any framing", () => {
  fc.assert(
    fc.property(fc.nat(60), anyDivision, fc.nat(2), (room, writableParts, status) => {
      const { request, written } = makeRequest({
        readable: header(IN, 0),
        writableBytes: room + 1,
        writableParts,
      });
      request.begin();
      assertEquals(request.end(status), room + 1);
      // Data that was read stays; the rest is zero.
      const filler = status === 0 ? UNTOUCHED : 0;
      assertEquals([...written()], [...new Array(room).fill(filler), status]);
    }),
  );
});

Deno.test("Request.end() zeroes writable bytes without data", () => {
  const { request, written } = makeRequest({ readable: header(OUT, 0), writableBytes: 4 });
  request.begin();
  request.end(0);
  assertEquals([...written()], [0, 0, 0, 0]);
});

Deno.test("Request.end() writes nothing to an abandoned chain", () => {
  const { request, chain, written } = makeRequest({ readable: header(OUT, 0), writableBytes: 4 });
  request.begin();
  chain.release();
  assertEquals(request.end(1), 4);
  assertEquals([...written()], new Array(4).fill(UNTOUCHED));
});

Deno.test("Request.begin() throws when there is no room for the status", () => {
  const { request } = makeRequest({ readable: header(OUT, 0), writableBytes: 0 });
  assertThrows(() => request.begin(), Error, "room for the status byte");
});

Deno.test("Request.begin() refuses a chain that is too short for a header", () => {
  for (let bytes = 0; bytes < 16; bytes++) {
    const { request, written } = makeRequest({
      readable: header(IN, 0).subarray(0, bytes),
      writableBytes: 1,
    });
    assertEquals(request.begin(), REFUSED.SHORT_HEADER);
    assertEquals(request.type, -1);
    request.end(1);
    assertEquals([...written()], [1]);
  }
});

Deno.test("Request has its initial state when its slot is used again", () => {
  const first = makeRequest({
    readable: join(header(DISCARD, 5), segment(0, 1), segment(1, 1)),
    writableBytes: 1,
  });
  const { request, chain, u8 } = first;
  request.begin();
  request.takeSegments(100, 100);
  assertEquals([request.segments, request.steps], [2, 2]);
  chain.readable.clear(u8);
  chain.writable.clear(u8);
  chain.writable.push(0, 1);
  chain.end();
  assertEquals(request.begin(), REFUSED.SHORT_HEADER);
  const { type, sector, segments, steps, step } = request;
  assertEquals({ type, sector, segments, steps, step }, {
    type: -1,
    sector: 0,
    segments: 0,
    steps: 0,
    step: 0,
  });
});

Deno.test("Request.takeRange() takes exactly whole sectors inside the capacity", () => {
  const capacity = fc.integer({ min: 1, max: 2 ** 44 });
  fc.assert(
    fc.property(
      capacity,
      fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.bigInt({ min: -4n, max: 4n })),
      fc.oneof(fc.nat(4).map((sectors) => sectors * 512), fc.nat(3000)),
      (capacity, place, bytes) => {
        // Around the capacity where small, else anywhere.
        const sector = place <= 4n && place >= -4n ? BigInt(capacity) + place : place;
        fc.pre(sector >= 0n);
        const { request } = makeRequest({ readable: header(IN, sector), writableBytes: bytes + 1 });
        request.begin();
        const expected = bytes % 512 !== 0
          ? REFUSED.NOT_ALIGNED
          : sector + BigInt(bytes / 512) > BigInt(capacity)
          ? REFUSED.OUT_OF_RANGE
          : 0;
        assertEquals(request.takeRange(capacity), expected);
        if (expected === 0) {
          assertEquals([BigInt(request.offset), request.bytes], [sector * 512n, bytes]);
        }
      },
    ),
  );
});

Deno.test("Request.takeSegments() gives every segment in any framing", () => {
  const anySegment = fc.tuple(fc.nat(900), fc.nat(100), fc.boolean());
  fc.assert(
    fc.property(
      fc.array(anySegment, { minLength: 1, maxLength: MAX_SEGMENTS }),
      anyDivision,
      (segments, readableParts) => {
        const { request } = makeRequest({
          readable: join(
            header(WRITE_ZEROES, 0),
            ...segments.map(([sector, sectors, unmap]) => segment(sector, sectors, Number(unmap))),
          ),
          writableBytes: 1,
          readableParts,
        });
        request.begin();
        assertEquals(request.takeSegments(1000, 100), 0);
        assertEquals(request.steps, segments.length);
        for (const [i, [sector, sectors, unmap]] of segments.entries()) {
          request.useSegment(i);
          const { offset, bytes } = request;
          assertEquals([offset, bytes, request.unmap], [sector * 512, sectors * 512, unmap]);
        }
      },
    ),
  );
});

Deno.test("Request.takeSegments() uses the checked values, whatever the driver writes later", () => {
  const { request, u8 } = makeRequest({
    readable: join(header(DISCARD, 0), segment(8, 8)),
    writableBytes: 1,
  });
  request.begin();
  assertEquals(request.takeSegments(16, 8), 0);
  u8.fill(0xff);
  request.useSegment(0);
  assertEquals([request.offset, request.bytes], [8 * 512, 8 * 512]);
});

const refusals: [name: string, type: number, data: Uint8Array, expected: number][] = [
  ["no segment", DISCARD, new Uint8Array(), REFUSED.SEGMENTS],
  ["half a segment", DISCARD, new Uint8Array(24), REFUSED.NOT_ALIGNED],
  [
    "too many segments",
    DISCARD,
    new Uint8Array(16 * (MAX_SEGMENTS + 1)),
    REFUSED.SEGMENTS,
  ],
  ["too large a segment", DISCARD, segment(0, 101), REFUSED.SEGMENTS],
  ["a segment behind the end", DISCARD, segment(996, 5), REFUSED.OUT_OF_RANGE],
  ["a segment that overflows", DISCARD, segment(2n ** 64n - 1n, 2), REFUSED.OUT_OF_RANGE],
  [
    "a second segment behind the end",
    WRITE_ZEROES,
    join(segment(0, 1), segment(1000, 1)),
    REFUSED.OUT_OF_RANGE,
  ],
  ["a discard with unmap", DISCARD, segment(0, 1, 1), REFUSED.UNSUPPORTED],
  ["an unknown flag of a discard", DISCARD, segment(0, 1, 2), REFUSED.UNSUPPORTED],
  ["an unknown flag of a write zeroes", WRITE_ZEROES, segment(0, 1, 3), REFUSED.UNSUPPORTED],
  [
    "an unknown flag behind a segment out of range",
    WRITE_ZEROES,
    join(segment(2000, 1), segment(0, 1, 2 ** 31)),
    REFUSED.UNSUPPORTED,
  ],
];

for (const [name, type, data, expected] of refusals) {
  Deno.test(`Request.takeSegments() refuses ${name}`, () => {
    const { request } = makeRequest({ readable: join(header(type, 0), data), writableBytes: 1 });
    request.begin();
    assertEquals(request.takeSegments(1000, 100), expected);
    assertEquals(request.steps, 0);
  });
}

Deno.test("statusOf() is UNSUPP for unsupported requests, a zone's own, and IOERR for failures", () => {
  const special: Record<number, number> = {
    [REFUSED.UNSUPPORTED]: 2,
    [REFUSED.ZONE_INVALID_CMD]: 3,
    [REFUSED.ZONE_UNALIGNED_WP]: 4,
    [REFUSED.ZONE_OPEN_RESOURCE]: 5,
    [REFUSED.ZONE_ACTIVE_RESOURCE]: 6,
  };
  assertEquals(statusOf(0), 0);
  for (const outcome of [5, 28, ...Object.values(REFUSED)]) {
    assertEquals(statusOf(outcome), special[outcome] ?? 1);
  }
});
