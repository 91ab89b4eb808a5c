/** A strict reader of pcapng files, written from the format's specification alone. */
import { assert, assertEquals } from "@std/assert";
import { concat } from "@std/bytes";

/** A packet of a capture. */
export interface CapturedPacket {
  /** The name of its interface. */
  port: string;
  bytes: Uint8Array;
  originalBytes: number;
  timeUs: number;
  direction: "in" | "out";
  comment?: string;
}

/** Reads a capture of one section; all that is not as it has to be is an error. */
export class PcapngReader {
  linkType = 0;
  /** The names of the interfaces. */
  names: string[] = [];
  snapBytes = 0;
  packets: CapturedPacket[] = [];
  /** The last statistics. */
  statistics?: { received: number; dropped: number; comment: string };
  /** The beginning of a block. */
  rest = new Uint8Array();
  #blocks = 0;

  /** Reads the next bytes of the capture. */
  add(bytes: Uint8Array): void {
    this.rest = concat([this.rest, bytes]);
    for (;;) {
      if (this.rest.length < 8) return;
      const length = new DataView(this.rest.buffer, this.rest.byteOffset).getUint32(4, true);
      assert(length >= 12 && length % 4 === 0, `length of block ${this.#blocks}`);
      if (this.rest.length < length) return;
      this.#read(this.rest.subarray(0, length));
      this.#blocks++;
      this.rest = this.rest.subarray(length);
    }
  }

  #read(block: Uint8Array): void {
    const view = new DataView(block.buffer, block.byteOffset, block.length);
    const u16 = (at: number) => view.getUint16(at, true);
    const u32 = (at: number) => view.getUint32(at, true);
    const end = block.length - 4;
    assertEquals(u32(end), block.length, "the length at the end");
    const type = u32(0);
    assertEquals(type === 0x0a0d0d0a, this.#blocks === 0, "one section header, at the beginning");
    if (type === 0x0a0d0d0a) {
      assertEquals([u32(8), u16(12), u16(14)], [0x1a2b3c4d, 1, 0]);
      readOptions(block.subarray(24, end));
    } else if (type === 1) {
      this.linkType = u16(8);
      assertEquals(u16(10), 0);
      this.snapBytes = u32(12);
      this.names.push(text(readOptions(block.subarray(16, end)).get(2)!));
    } else if (type === 6) {
      const port = this.names[u32(8)];
      assert(port !== undefined, "the interface comes before its packets");
      const [bytes, originalBytes] = [u32(20), u32(24)];
      assertEquals(bytes, Math.min(originalBytes, this.snapBytes));
      const after = 28 + Math.ceil(bytes / 4) * 4;
      assert(block.subarray(28 + bytes, after).every((byte) => byte === 0), "padding");
      const options = readOptions(block.subarray(after, end));
      const flags = options.get(2)![0] & 3;
      assert(flags === 1 || flags === 2);
      this.packets.push({
        port,
        bytes: block.subarray(28, 28 + bytes),
        originalBytes,
        timeUs: u32(12) * 2 ** 32 + u32(16),
        direction: flags === 1 ? "in" : "out",
        ...options.has(1) && { comment: text(options.get(1)!) },
      });
    } else {
      assertEquals(type, 5);
      assert(u32(8) < this.names.length);
      const options = readOptions(block.subarray(20, end));
      const u64 = (code: number) =>
        Number(new BigUint64Array(options.get(code)!.slice().buffer)[0]);
      this.statistics = { received: u64(4), dropped: u64(5), comment: text(options.get(1)!) };
    }
  }
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function readOptions(bytes: Uint8Array): Map<number, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const options = new Map<number, Uint8Array>();
  for (let at = 0;;) {
    const [code, length] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
    const next = at + 4 + Math.ceil(length / 4) * 4;
    assert(next <= bytes.length);
    if (code === 0) {
      assertEquals([length, next], [0, bytes.length], "the end of the options");
      return options;
    }
    assert(bytes.subarray(at + 4 + length, next).every((byte) => byte === 0), "padding");
    options.set(code, bytes.subarray(at + 4, at + 4 + length));
    at = next;
  }
}

/** Reads a whole file. */
export function readPcapng(file: Uint8Array): PcapngReader {
  const reader = new PcapngReader();
  reader.add(file);
  assertEquals(reader.rest.length, 0, "the last block is whole");
  return reader;
}
