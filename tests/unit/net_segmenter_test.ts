import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { PacketHeader } from "../../backends/net/header.ts";
import { type Offload, SENT } from "../../backends/net/packet.ts";
import { MAX_SEGMENTS, Segmenter } from "../../backends/net/segmenter.ts";
import { addressOf, pinnedBuffer } from "../../src/linux/mod.ts";
import { Parts } from "../../src/virtqueue/mod.ts";
import { type IpFrame, ipFrame, network, transport } from "./lib/ip_frames.ts";

const HEADER_BYTES = 12;
const FIN = 1, PSH = 8, CWR = 0x80;

const memory = new Uint8Array(pinnedBuffer(2 ** 18));
const target = new Uint8Array(pinnedBuffer(2 ** 20));
const segmenter = new Segmenter(target, addressOf(memory));
const header = new PacketHeader();
const every = { get: () => true };
header.negotiated(new Proxy({} as Record<Offload, boolean>, every));

/** What the driver says of a packet. */
interface Said {
  flags: number;
  gsoType: number;
  gsoSize: number;
  csumStart: number;
  csumOffset: number;
}

/** Puts a packet into guest memory, in parts of the given lengths and a last one. */
function put(frame: Uint8Array, said: Said, lengths: number[]): Parts {
  const bytes = new Uint8Array(HEADER_BYTES + frame.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, said.flags);
  view.setUint8(1, said.gsoType);
  view.setUint16(4, said.gsoSize, true);
  view.setUint16(6, said.csumStart, true);
  view.setUint16(8, said.csumOffset, true);
  bytes.set(frame, HEADER_BYTES);
  const parts = new Parts(memory);
  let at = 1, from = 0;
  for (const wanted of [...lengths, bytes.length]) {
    const length = Math.min(wanted, bytes.length - from);
    memory.set(bytes.subarray(from, from + length), at);
    parts.push(at, length);
    from += length;
    at += length + 3;
  }
  return parts;
}

/** The frames that a packet becomes. */
function framesOf(packet: Parts): Uint8Array[] {
  assertEquals(header.read(packet), SENT);
  const count = segmenter.begin(packet, header);
  const frames: Uint8Array[] = [];
  let at = 5;
  for (; segmenter.left > 0; at += frames.at(-1)!.length) {
    frames.push(target.slice(at, at + segmenter.next(at)));
  }
  assertEquals([frames.length, at - 5], [count, count === 0 ? 0 : segmenter.byteLength]);
  return frames;
}

const KINDS = { tcp4: 1, ufo: 3, tcp6: 4, uso: 5 } as const;

/** A large packet, and the frames that it should become. */
interface Case {
  frame: IpFrame;
  kind: keyof typeof KINDS;
  gsoSize: number;
  hasEcn: boolean;
}

function said({ frame, kind, gsoSize, hasEcn }: Case): Said {
  return {
    flags: 1,
    gsoType: KINDS[kind] | (hasEcn ? 0x80 : 0),
    gsoSize,
    csumStart: network(frame, 0).length,
    csumOffset: frame.protocol === "udp" ? 6 : 16,
  };
}

function expectedFrames({ frame, kind, gsoSize }: Case): Uint8Array[] {
  if (kind === "ufo") return expectedFragments(frame, gsoSize - gsoSize % 8);
  const count = Math.max(1, Math.ceil(frame.payload.length / gsoSize));
  return Array.from({ length: count }, (_, i) => {
    let flags = frame.flags;
    if (i > 0) flags &= ~CWR;
    if (i < count - 1) flags &= ~(FIN | PSH);
    const segment = {
      ...frame,
      id: frame.id + i & 0xffff,
      sequence: (frame.sequence + i * gsoSize) % 2 ** 32,
      flags,
      payload: frame.payload.subarray(i * gsoSize, (i + 1) * gsoSize),
    };
    return ipFrame(segment, "complete");
  });
}

function expectedFragments(frame: IpFrame, size: number): Uint8Array[] {
  const datagram = transport(frame, "complete");
  const fragments: Uint8Array[] = [];
  for (let at = 0; at < datagram.length; at += size) {
    const piece = datagram.slice(at, at + size);
    const more = at + size < datagram.length;
    const headers = network({
      ...frame,
      fragment: at / 8 | (more ? 0x2000 : 0),
      fragment6: frame.ip === 6 ? [at | (more ? 1 : 0), 0] : undefined,
    }, piece.length);
    fragments.push(Uint8Array.from([...headers, ...piece]));
  }
  return fragments;
}

/** Frames whose IPv6 fragments have no identification; each packet has one for all. */
function withoutIdentification(frames: Uint8Array[], { frame, kind }: Case): Uint8Array[] {
  if (kind !== "ufo" || frame.ip === 4) return frames;
  const at = network({ ...frame, fragment6: [0, 0] }, 0).length - 4;
  assertEquals(new Set(frames.map((frame) => frame.slice(at, at + 4).join())).size, 1);
  frames.forEach((frame) => frame.fill(0, at, at + 4));
  return frames;
}

const words = (most: number) =>
  fc.nat(most).chain((n) => fc.uint8Array({ minLength: 4 * n, maxLength: 4 * n }));
const extension = (...types: number[]) =>
  fc.tuple(fc.constantFrom(...types), fc.nat(2)).map(([type, n]): [number, Uint8Array] => [
    type,
    new Uint8Array(7 + 8 * n).fill(n, 0, 1),
  ]);

const cases: fc.Arbitrary<Case> = fc.record({
  kind: fc.constantFrom<keyof typeof KINDS>("tcp4", "tcp6", "uso", "ufo"),
  gsoSize: fc.integer({ min: 8, max: 200 }),
  hasEcn: fc.boolean(),
  frame: fc.record({
    vlans: fc.nat(2),
    ip: fc.constantFrom<4 | 6>(4, 6),
    options: words(10),
    extensions: fc.array(extension(0, 43, 60), { maxLength: 3 }),
    id: fc.nat(0xffff),
    fragment: fc.constantFrom(0, 0x4000),
    protocol: fc.constant<"tcp" | "udp">("udp"),
    sequence: fc.nat(0xffff_ffff),
    flags: fc.nat(255),
    tcpOptions: words(10),
    payload: fc.uint8Array({ maxLength: 2000 }),
  }),
}).map(({ kind, frame, ...rest }) => {
  if (kind === "tcp4" || kind === "tcp6") {
    frame = { ...frame, protocol: "tcp", ip: kind === "tcp4" ? 4 : 6 };
  }
  if (kind === "ufo") {
    frame = { ...frame, extensions: frame.extensions.filter(([type]) => type !== 60) };
  }
  return { kind, frame, ...rest };
});

const lengths = fc.array(fc.nat(150), { maxLength: 12 });

Deno.test("Segmenter divides packets of every kind as a slow model does", () => {
  fc.assert(
    fc.property(cases, lengths, (one, lengths) => {
      const frames = framesOf(put(ipFrame(one.frame, "partial"), said(one), lengths));
      assertEquals(withoutIdentification(frames, one), expectedFrames(one));
    }),
    { numRuns: 1500 },
  );
});

Deno.test("Segmenter completes a checksum wherever it is", () => {
  fc.assert(fc.property(
    fc.uint8Array({ minLength: 14, maxLength: 300 }),
    fc.nat(298),
    fc.nat(298),
    lengths,
    (frame, csumStart, csumOffset, lengths) => {
      fc.pre(csumStart + csumOffset + 2 <= frame.length);
      const said = { flags: 1, gsoType: 0, gsoSize: 7, csumStart, csumOffset };
      const [made, ...others] = framesOf(put(frame, said, lengths));
      assertEquals(others, []);
      let sum = 0;
      for (let i = csumStart; i < frame.length; i++) {
        sum += frame[i] * ((i - csumStart) % 2 === 0 ? 256 : 1);
      }
      const expected = frame.slice();
      const value = 0xffff - (sum === 0 ? 0 : sum % 0xffff || 0xffff) || 0xffff;
      expected.set([value >> 8, value & 0xff], csumStart + csumOffset);
      assertEquals(made, expected);
    },
  ));
});

Deno.test("Segmenter copies a frame that needs nothing", () => {
  const frame = Uint8Array.from({ length: 300 }, (_, i) => i * 7);
  const said = { flags: 0, gsoType: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
  assertEquals(framesOf(put(frame, said, [5, 0, 100])), [frame]);
  assert(header.isPlain);
});

const BASE: IpFrame = {
  ...{ vlans: 0, ip: 4, options: new Uint8Array(), extensions: [], id: 65_535, fragment: 0x4000 },
  ...{ protocol: "tcp", sequence: 2 ** 32 - 1, flags: 0x99, tcpOptions: new Uint8Array(12) },
  payload: new Uint8Array(65_535 - 20 - 32).fill(0xff),
};

Deno.test("Segmenter divides the largest packets", () => {
  const udp = { ...BASE, protocol: "udp" as const };
  const largest: Record<keyof typeof KINDS, IpFrame> = {
    tcp4: BASE,
    tcp6: { ...BASE, ip: 6, payload: new Uint8Array(65_535 - 32 - 36).fill(0xff) },
    uso: { ...udp, payload: new Uint8Array(65_535 - 28) },
    ufo: { ...udp, payload: new Uint8Array(65_535 - 28).fill(0xff) },
  };
  for (const [kind, frame] of Object.entries(largest) as [keyof typeof KINDS, IpFrame][]) {
    for (const gsoSize of [40, 1448, 32_768, 65_535]) {
      const one = { frame, kind, gsoSize, hasEcn: false };
      assertEquals(
        framesOf(put(ipFrame(frame, "partial"), said(one), [])),
        expectedFrames(one),
      );
    }
  }
});

Deno.test("Segmenter refuses a packet that is not what its header says", () => {
  const udp = { ...BASE, protocol: "udp" as const, payload: new Uint8Array(900) };
  const tcp = { ...BASE, payload: new Uint8Array(900) };
  const option = new Uint8Array(7);
  const refused: [string, Case, Partial<Said>?, ((frame: Uint8Array) => void)?][] = [
    ["too many segments", { frame: BASE, kind: "tcp4", gsoSize: 31, hasEcn: false }],
    ["UDP in TCP's place", { frame: udp, kind: "tcp4", gsoSize: 100, hasEcn: false }],
    ["TCP in UDP's place", { frame: tcp, kind: "uso", gsoSize: 100, hasEcn: false }],
    ["TCP as fragments", { frame: tcp, kind: "ufo", gsoSize: 100, hasEcn: false }],
    ["IPv4 in IPv6's place", { frame: tcp, kind: "tcp6", gsoSize: 100, hasEcn: false }],
    ["IPv6 in IPv4's place", {
      ...{ frame: { ...tcp, ip: 6 }, kind: "tcp4", gsoSize: 100, hasEcn: false },
    }],
    ["fragments of less than 8 bytes", { frame: udp, kind: "ufo", gsoSize: 7, hasEcn: false }],
    ["a fragment", {
      ...{ frame: { ...tcp, fragment: 1 }, kind: "tcp4", gsoSize: 100, hasEcn: false },
    }],
    ["fragments with options for the destination", {
      frame: { ...udp, ip: 6, extensions: [[60, option]] },
      ...{ kind: "ufo", gsoSize: 100, hasEcn: false },
    }],
    ["three VLAN tags", {
      ...{ frame: { ...tcp, vlans: 3 }, kind: "tcp4", gsoSize: 100, hasEcn: false },
    }],
    ["another checksum", { frame: tcp, kind: "tcp4", gsoSize: 100, hasEcn: false }, {
      csumOffset: 14,
    }],
    ["another place of the checksum", {
      ...{ frame: tcp, kind: "tcp4", gsoSize: 100, hasEcn: false },
    }, { csumStart: 38, csumOffset: 16 }],
    ["a short TCP header", { frame: tcp, kind: "tcp4", gsoSize: 100, hasEcn: false }, {}, (f) => {
      f[46] = 0x40;
    }],
    ["another IP version", { frame: tcp, kind: "tcp4", gsoSize: 100, hasEcn: false }, {}, (f) => {
      f[14] = 0x65;
    }],
    ["more than an IP packet", {
      frame: { ...BASE, payload: new Uint8Array(65_535 - 48) },
      ...{ kind: "tcp4", gsoSize: 65_535, hasEcn: false },
    }],
    ["a fragment that is larger than any frame", {
      frame: { ...udp, ip: 6, payload: new Uint8Array(65_490) },
      ...{ kind: "ufo", gsoSize: 65_535, hasEcn: false },
    }],
  ];
  for (const [name, one, other, change] of refused) {
    const frame = ipFrame(one.frame, "partial");
    change?.(frame);
    assertEquals(framesOf(put(frame, { ...said(one), ...other }, [])), [], name);
  }
});

Deno.test("Segmenter stays within its limits whatever the packet is", () => {
  const mutations = fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 6 });
  const small = fc.integer({ min: 0, max: 100 });
  fc.assert(
    fc.property(
      fc.tuple(cases, mutations, lengths, fc.nat(2000), small, small, fc.boolean(), fc.nat(2000)),
      ([one, mutations, lengths, cut, csumStart, csumOffset, isOther, gsoSize]) => {
        const frame = ipFrame(one.frame, "partial").subarray(0, 14 + cut);
        for (const [at, value] of mutations) if (at < frame.length) frame[at] = value;
        const other = isOther ? { csumStart, csumOffset, gsoSize } : {};
        const packet = put(frame, { ...said(one), ...other }, lengths);
        fc.pre(header.read(packet) === SENT);
        assert(framesOf(packet).length <= MAX_SEGMENTS);
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("Segmenter.next() wants room for the frame, and a frame that is left", () => {
  const one: Case = { frame: BASE, kind: "tcp4", gsoSize: 1448, hasEcn: false };
  const packet = put(ipFrame(BASE, "partial"), said(one), []);
  assertEquals(header.read(packet), SENT);
  segmenter.begin(packet, header);
  const bytes = segmenter.next(0);
  for (const at of [-1, target.length - bytes + 1, NaN]) {
    assertThrows(() => segmenter.next(at), RangeError, "room");
  }
  while (segmenter.left > 0) segmenter.next(target.length - bytes);
  assertThrows(() => segmenter.next(0), RangeError);
});
