/** What a device does with the parts of a chain, beside the same bytes in one piece. */
import type { Parts } from "../../../src/virtqueue/mod.ts";
import type { Random } from "../../lib/random.ts";
import type { Pieces } from "./oracle.ts";

/** The most bytes that are looked at. */
const MAX_BYTES = 4096;

/** Reads parts at random; `memory` is the span that `pieces` of it are of. */
export function useParts(random: Random, parts: Parts, pieces: Pieces, memory: Uint8Array): void {
  if (parts.byteLength > MAX_BYTES) return;
  const bytes = pieces.flatMap(([index, length]) => [...memory.subarray(index, index + length)]);
  for (let i = random.below(5); i > 0; i--) {
    const offset = random.below(bytes.length + 3);
    const count = random.pick([1, 2, 4, 8]);
    const isInside = offset + count <= bytes.length;
    // From 2^53 on, the nearest number that there is.
    const expected = Number(
      bytes.slice(offset, offset + count).reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n),
    );
    switch (random.below(5)) {
      case 0:
        expectSame(isInside ? expected : undefined, () => number(parts, offset, count));
        break;
      case 1: {
        const into = new Uint8Array(random.below(40));
        const wanted = bytes.slice(offset, offset + into.length);
        expectSame(wanted.length, () => parts.read(offset, into));
        expectSame(wanted.join(), () => into.subarray(0, wanted.length).join());
        break;
      }
      case 2: {
        const listed: number[] = [];
        const sink = {
          push(at: number, length: number) {
            listed.push(...memory.subarray(at, at + length));
            return true;
          },
        };
        const wanted = bytes.slice(offset, offset + count);
        expectSame(wanted.length, () => parts.gather(sink, 0, offset, count));
        expectSame(wanted.join(), () => listed.join());
        break;
      }
      case 3: {
        const wanted = bytes.slice(offset, offset + count);
        const end = wanted.indexOf(0);
        const text = Uint8Array.from(end < 0 ? wanted : wanted.slice(0, end));
        const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
        expectSame(decoder.decode(text), () => parts.text(offset, count));
        break;
      }
      case 4: {
        const at = parts.locate(offset);
        const wanted = offset < bytes.length ? bytes[offset] : -1;
        expectSame(wanted, () => at < 0 ? -1 : memory[at]);
      }
    }
    expectSame(bytes.length, () => parts.byteLength);
    expectSame(bytes.length, () => [...parts].reduce((sum, part) => sum + part.length, 0));
  }
}

function number(parts: Parts, offset: number, bytes: number): number {
  if (bytes === 1) return parts.u8(offset);
  if (bytes === 2) return parts.u16(offset);
  return bytes === 4 ? parts.u32(offset) : parts.u64(offset);
}

/** Compares what is got with what is wanted: undefined for a RangeError. */
function expectSame(wanted: unknown, get: () => unknown): void {
  let got: unknown;
  try {
    got = get();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  if (got !== wanted) throw new Error(`Expected ${wanted} of a chain's parts, got ${got}`);
}
