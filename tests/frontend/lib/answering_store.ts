/** A store in memory that answers as its option says, for tests. */
import { defineStore, LATER, type StoreAnswer } from "../../../backends/blk/module/mod.ts";

const content = new Uint8Array(2 ** 20);

export default defineStore({
  options: {
    manner: {
      type: "text",
      placeholder: "now|promise|later|throw|reject",
      choices: ["now", "promise", "later", "throw", "reject"],
      default: "now",
      about: "How it answers",
    },
  },
  open: () => ({ bytes: content.length, shared: "shared", report: () => ({ sort: "test" }) }),
  async attach(context) {
    await null;
    if (context.shared !== "shared") throw new Error(`Expected what open() shared`);
    return {
      answer(request: Parameters<typeof context.done>[0]): StoreAnswer {
        switch (context.options.manner) {
          case "now":
            return;
          case "promise":
            return new Promise((resolve) => setTimeout(resolve, 1));
          case "later":
            void context.keep(
              new Promise<void>((resolve) =>
                setTimeout(() => {
                  context.done(request, 0);
                  context.flush();
                  resolve();
                }, 1)
              ),
            );
            return LATER;
          case "throw":
            throw new Error("thrown");
          case "reject":
            return Promise.reject(new Error("rejected"));
        }
      },
    };
  },
  read(request, state) {
    const { data, dataOffset, offset, bytes } = request;
    data.write(dataOffset, content.subarray(offset, offset + bytes));
    return state.answer(request);
  },
  write(request, state) {
    const { data, dataOffset, offset, bytes } = request;
    data.read(dataOffset, content.subarray(offset, offset + bytes));
    return state.answer(request);
  },
  flush: (request, state) => state.answer(request),
  discard: (request, state) => state.answer(request),
  secureErase(request, state) {
    content.fill(0xee, request.offset, request.offset + request.bytes);
    return state.answer(request);
  },
  lifetime: () => ({ preEolInfo: 2, typeA: 9, typeB: 0 }),
});
