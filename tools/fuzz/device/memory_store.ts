/** A store in memory, as a module has it, with all that a store can do. */
import { defineStore } from "../../../backends/blk/module/mod.ts";

export default defineStore({
  options: {
    size: { type: "number", unit: "bytes", placeholder: "SIZE", default: 0, about: "Its size" },
  },
  open({ size }) {
    const shared = new SharedArrayBuffer(size, { maxByteLength: 2 * size });
    return { bytes: size, shared, resize: (bytes) => resize(shared, bytes) };
  },
  attach: ({ shared }) => new Uint8Array(shared as SharedArrayBuffer),
  read({ data, dataOffset, offset, bytes }, content) {
    data.write(dataOffset, content.slice(offset, offset + bytes));
  },
  write({ data, dataOffset, offset, bytes }, content) {
    const copy = new Uint8Array(bytes);
    data.read(dataOffset, copy);
    content.set(copy, offset);
  },
  async flush() {},
  discard: ({ offset, bytes }, content) => void content.fill(0, offset, offset + bytes),
  writeZeroes: ({ offset, bytes }, _, content) => void content.fill(0, offset, offset + bytes),
  secureErase: ({ offset, bytes }, content) => void content.fill(0, offset, offset + bytes),
  lifetime: () => ({ preEolInfo: 1, typeA: 2, typeB: 3 }),
});

/** Memory that is shared only grows. */
function resize(shared: SharedArrayBuffer, bytes: number): void {
  if (bytes > shared.byteLength) shared.grow(bytes);
  else new Uint8Array(shared).fill(0, bytes);
}
