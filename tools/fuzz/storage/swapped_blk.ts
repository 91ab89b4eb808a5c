/**
 * A block device whose file is swapped, once it is open, for something that is no disk or cannot be
 * written.
 */
import blk from "../../../backends/blk/mod.ts";
import { blkOptions } from "../../../backends/blk/options.ts";
import { defineDevice } from "../../../mod.ts";
import { openFile } from "../../../src/linux/mod.ts";

const { open, handlers, ...others } = blk;

export default defineDevice({
  ...others,
  name: "swapped-blk",
  module: import.meta.url,
  options: {
    ...blkOptions,
    swapPath: { type: "text", placeholder: "PATH", about: "What is opened in place of the disk" },
    swapWritable: { type: "flag", about: "It is opened for writing" },
  },
  async open(context) {
    const { swapPath, swapWritable } = context.options;
    const opened = await open!(context);
    const fd = openFile(swapPath!, { write: swapWritable, nonblocking: true });
    const shared = opened.shared!;
    return {
      ...opened,
      shared: { ...shared, store: { ...shared.store, fd: fd.number, map: undefined } },
      async [Symbol.asyncDispose]() {
        fd.close();
        await opened[Symbol.asyncDispose]?.();
      },
    };
  },
  handlers: (context) => handlers(context),
});
