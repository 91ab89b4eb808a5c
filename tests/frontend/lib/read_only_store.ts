/** A store that can only be read, for tests. */
import { defineStore } from "../../../backends/blk/module/mod.ts";

export default defineStore({
  open: () => ({ bytes: 65_536, blockBytes: 4096 }),
  read: ({ data, dataOffset, bytes }) => data.fill(7, dataOffset, bytes),
});
