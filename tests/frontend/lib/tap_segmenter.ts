/**
 * A program: joins two TAPs. Packets from the first may have every offload; the second gets plain
 * frames, made by `Segmenter`. It is started with their names, makes them, and prints a line when it
 * runs. The second is set up before the first. Each line of its standard input, the hexadecimal
 * bytes of a packet, is sent like a packet of the first.
 */
import { PacketHeader } from "../../../backends/net/header.ts";
import type { Offload } from "../../../backends/net/packet.ts";
import { Segmenter } from "../../../backends/net/segmenter.ts";
import {
  addressOf,
  openTap,
  pinnedBuffer,
  readNow,
  setTapOffload,
  TapOffload,
  watch,
  writeNow,
} from "../../../src/linux/mod.ts";
import { Parts } from "../../../src/virtqueue/mod.ts";

const HEADER_BYTES = 12;

if (import.meta.main) await main(Deno.args[0], Deno.args[1]);

async function main(large: string, plain: string): Promise<void> {
  const from = openTap(large, HEADER_BYTES, false).number;
  const to = openTap(plain, HEADER_BYTES, false).number;
  const { CSUM, TSO4, TSO6, TSO_ECN } = TapOffload;
  setTapOffload(from, CSUM | TSO4 | TSO6 | TSO_ECN);
  setTapOffload(to, 0);
  const memory = new Uint8Array(pinnedBuffer(2 ** 17));
  const frames = new Uint8Array(pinnedBuffer(2 ** 17));
  const segmenter = new Segmenter(frames.subarray(HEADER_BYTES), addressOf(memory));
  const header = new PacketHeader();
  header.negotiated(new Proxy({} as Record<Offload, boolean>, { get: () => true }));
  const send = (bytes: number) => {
    const packet = new Parts(memory);
    packet.push(0, bytes);
    const reason = header.read(packet);
    if (reason !== 0) throw new Error(`Expected a valid header, got drop reason ${reason}`);
    if (segmenter.begin(packet, header) === 0) throw new Error("Expected a valid packet");
    while (segmenter.left > 0) {
      const bytes = segmenter.next(0);
      frames.fill(0, 0, HEADER_BYTES);
      writeNow(to, frames.subarray(0, HEADER_BYTES + bytes));
    }
  };
  let isUp = false;
  watch(from, "readable", () => {
    isUp = true;
    for (let bytes; (bytes = readNow(from, memory)) > 0;) send(bytes);
  });
  watch(to, "readable", () => {
    for (let bytes; (bytes = readNow(to, memory)) > 0;) {
      if (isUp) writeNow(from, memory.subarray(0, bytes));
    }
  });
  console.log("runs");
  let text = "";
  for await (const piece of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (text + piece).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      memory.set(Uint8Array.fromHex(line));
      send(line.length / 2);
    }
  }
}
