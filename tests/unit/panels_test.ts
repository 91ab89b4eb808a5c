/** Parts of panels that run without a browser. */
import { stripTypeScriptTypes } from "node:module";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { HEAT_BYTES, HeatMap, PLACES } from "../../backends/blk/heat.ts";
import { keyOf } from "../../backends/input/browser_keys.ts";
import { KEY } from "../../backends/input/codes.ts";
import { type PacketSummary, readPackets } from "../../backends/net/packet_summary.ts";
import { History } from "../../src/web/client/history.ts";
import type { DeviceEntry } from "../../src/web/device_hub.ts";
import {
  fileHeader,
  INBOUND,
  OUTBOUND,
  packetBlock,
  packetTrailer,
} from "../../src/linux/capture/pcapng.ts";

Deno.test("keyOf() names keys of browsers as Linux does", () => {
  const codes = [
    ..."ABCDEFGHIJKLMNOPQRSTUVWXYZ".split("").map((letter) => `Key${letter}`),
    ..."0123456789".split("").flatMap((digit) => [`Digit${digit}`, `Numpad${digit}`]),
    ...Array.from({ length: 12 }, (_, i) => `F${i + 1}`),
    ...["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"],
    ...["Insert", "Delete", "Backspace", "Tab", "Enter", "Escape", "Space", "CapsLock"],
    ...["ShiftLeft", "ShiftRight", "ControlLeft", "ControlRight", "AltLeft", "AltRight"],
    ...["MetaLeft", "MetaRight", "NumLock", "ScrollLock", "Minus", "Equal", "BracketLeft"],
    ...["BracketRight", "Backslash", "Semicolon", "Quote", "Backquote", "Comma", "Period", "Slash"],
    ...["IntlBackslash", "ContextMenu", "PrintScreen", "Pause", "NumpadEnter", "NumpadAdd"],
    ...["NumpadSubtract", "NumpadMultiply", "NumpadDivide", "NumpadDecimal"],
  ];
  const unknown = codes.filter((code) => !Object.hasOwn(KEY, keyOf(code) ?? ""));
  assertEquals(unknown, []);
  assertEquals([keyOf("KeyA"), keyOf("ControlLeft"), keyOf("Digit7")], [
    "KEY_A",
    "KEY_LEFTCTRL",
    "KEY_7",
  ]);
  assertEquals([keyOf("__proto__"), keyOf("a b"), keyOf("")], [undefined, undefined, undefined]);
});

Deno.test("HeatMap counts reads and writes by their place", () => {
  const memory = new SharedArrayBuffer(8 + HEAT_BYTES);
  const heat = new HeatMap(memory, 8);
  heat.add(0, 0, 1000);
  heat.add(0, 999, 1000);
  heat.add(1, 999, 1000);
  for (const [type, sector, capacity] of [[0, 1000, 1000], [0, -1, 10], [0, 0, 0], [4, 0, 9]]) {
    heat.add(type, sector, capacity);
  }
  const map = new HeatMap(memory, 8);
  const { reads, writes } = HeatMap.total([map, map]);
  assertEquals([reads[0], reads[PLACES - 1], writes[PLACES - 1]], [2, 2, 2]);
  assertEquals([...reads, ...writes].reduce((sum, count) => sum + count), 6);
});

/** A frame that begins with two MAC addresses and has these bytes after them. */
function frame(...bytes: number[]): Uint8Array {
  return Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ...bytes]);
}

const ipv4 = (protocol: number, ...payload: number[]) =>
  frame(8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2, ...payload);

async function packetsOf(bytes: Uint8Array<ArrayBuffer>, piece: number): Promise<PacketSummary[]> {
  const pieces = Array.from(
    { length: Math.ceil(bytes.length / piece) },
    (_, i) => bytes.slice(i * piece, (i + 1) * piece),
  );
  return (await Array.fromAsync(readPackets(ReadableStream.from(pieces)))).flat();
}

Deno.test("readPackets() tells packets in one line each, however the stream is divided", async () => {
  const frames = [
    ipv4(17, 0, 53, 4, 0),
    ipv4(6, 1, 187, 0x80, 0, 0, 0),
    ipv4(1, 8, 0),
    ipv4(6, 1),
    frame(0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255, ...Array(15).fill(0), 1, 0xfe, 0x80, 9, 0, 1),
    frame(0x88, 0xcc),
    Uint8Array.of(1, 2, 3),
  ];
  const blocks = [
    ...fileHeader(1, ["net"], 65_535),
    ...frames.map((bytes, i) =>
      packetBlock(0, 5_000_000 + i, bytes, packetTrailer(i % 2 === 0 ? OUTBOUND : INBOUND))
    ),
  ];
  const bytes = new Uint8Array(await new Blob(blocks).arrayBuffer());
  const whole = await packetsOf(bytes, bytes.length);
  assertEquals(
    whole.map(({ protocol, source, destination, toGuest }) => [
      ...[protocol, source, destination, toGuest],
    ]),
    [
      ["UDP", "10.0.2.15:53", "10.0.2.2:1024", false],
      ["TCP", "10.0.2.15:443", "10.0.2.2:32768", true],
      ["ICMP", "10.0.2.15", "10.0.2.2", false],
      ["TCP", "10.0.2.15", "10.0.2.2", true],
      ["0x86dd", "07:08:09:0a:0b:0c", "01:02:03:04:05:06", false],
      ["0x88cc", "07:08:09:0a:0b:0c", "01:02:03:04:05:06", true],
      ["short", "", "", false],
    ],
  );
  assertEquals(whole[0].at, 5000);
  assertEquals(whole[0].bytes, frames[0].length);
  for (const piece of [1, 7, 64]) assertEquals(await packetsOf(bytes, piece), whole);
});

Deno.test("readPackets() refuses a stream that is no pcapng, and takes any frame", async () => {
  await assertRejects(() => packetsOf(new Uint8Array(64).fill(255), 64), RangeError);
  await assertRejects(() => packetsOf(new Uint8Array(64), 64), RangeError);
  for (let length = 0; length < 80; length++) {
    for (const type of [[8, 0], [8, 6], [0x86, 0xdd]]) {
      const bytes = frame(...type, ...Array(66).fill(0x4f)).slice(0, length);
      const [packet] = await packetsOf(packetBlock(0, 0, bytes, packetTrailer(INBOUND)), 50);
      assert(packet.bytes === length);
    }
  }
});

Deno.test("History makes rates and percentiles of the difference to a second before", () => {
  const history = new History();
  const take = (at: number, requests: number, buckets: [number, number][]) =>
    history.take({
      live: {
        record: {
          at,
          process: { cpuSeconds: at / 4000 },
          queues: [{
            ...{ requests, bytesRead: 0, bytesWritten: 512 * requests },
            latencies: [{ kind: "request", buckets }],
          }],
        },
      },
    } as unknown as DeviceEntry);
  take(0, 0, []);
  take(500, 100, [[10, 50], [20, 50]]);
  take(600, 999, []); // too early
  take(1000, 200, [[10, 60], [20, 51], [80, 1]]);
  take(1500, 400, [[10, 60], [20, 150], [80, 1]]);
  assertEquals(history.rates, { requests: 300, bytes: 300 * 512, cpu: 0.25, queues: [300] });
  assertEquals(history.lines.latency, [
    [0, 0.5, 1, 1.5],
    [null, 10, 10, 20],
    [null, 20, 20, 20],
  ]);
  assertEquals(history.lines.requests[1], [0, 200, 200, 300]);
});

Deno.test("index.html preloads each module that the page imports", async () => {
  const client = new URL("../../src/web/client/", import.meta.url);
  const index = await Deno.readTextFile(new URL("index.html", client));
  const loaded = [...index.matchAll(/ (?:src|href)="src\/web\/client\/(\w+)\.ts"/g)]
    .map(([, name]) => name);
  const needed = new Set(["main", "kit"]);
  for (const name of needed) {
    const code = stripTypeScriptTypes(await Deno.readTextFile(new URL(`${name}.ts`, client)));
    for (const [, other] of code.matchAll(/from "\.\/(\w+)\.ts"/g)) needed.add(other);
  }
  assertEquals(loaded.sort(), [...needed].sort());
});
