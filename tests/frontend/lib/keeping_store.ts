/** A small disk in memory that answers by promises and flushes, for tests. */
import { defineStore } from "../../../backends/blk/module/mod.ts";

const disk = new Uint8Array(2 ** 20);

export default defineStore({
  open: () => ({ bytes: disk.length }),
  async read({ data, dataOffset, offset, bytes }) {
    await Promise.resolve();
    data.write(dataOffset, disk.subarray(offset, offset + bytes));
  },
  async write({ data, dataOffset, offset, bytes }) {
    await Promise.resolve();
    data.read(dataOffset, disk.subarray(offset, offset + bytes));
  },
  flush: () => Promise.resolve(),
});
