/** A disk whose sectors are computed, which answers as its option says, for tests. */
import { defineStore, LATER } from "../../../backends/blk/module/mod.ts";
import { sectorOf } from "./sector_load.ts";

export default defineStore({
  options: {
    manner: {
      type: "text",
      placeholder: "now|promise|later",
      choices: ["now", "promise", "later"],
      default: "now",
      about: "How it answers",
    },
    sectors: { type: "number", placeholder: "N", about: "Its size" },
    block: { type: "number", placeholder: "BYTES", default: 512, about: "Its block size" },
  },
  open: ({ sectors = 2048, block }) => ({ bytes: sectors * 512, blockBytes: block }),
  read(request, context) {
    const { data, dataOffset, offset, bytes } = request;
    for (let at = 0; at < bytes; at += 512) {
      data.write(dataOffset + at, sectorOf((offset + at) / 512, 0));
    }
    const { manner } = context.options as { manner: string };
    if (manner === "now") return 0;
    const waited = new Promise<void>((resolve) => setTimeout(resolve, 1));
    if (manner === "promise") return waited;
    void context.keep(waited.then(() => {
      context.done(request, 0);
      context.flush();
    }));
    return LATER;
  },
});
