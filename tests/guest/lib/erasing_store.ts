/** A store in memory that can erase beyond recovery: what was erased reads as 0xee. */
import { defineStore } from "../../../backends/blk/module/mod.ts";

const content = new Uint8Array(2 ** 20);

export default defineStore({
  open: () => ({ bytes: content.length }),
  read({ data, dataOffset, offset, bytes }) {
    data.write(dataOffset, content.subarray(offset, offset + bytes));
  },
  write({ data, dataOffset, offset, bytes }) {
    data.read(dataOffset, content.subarray(offset, offset + bytes));
  },
  secureErase({ offset, bytes }) {
    content.fill(0xee, offset, offset + bytes);
  },
});
