/**
 * A device for tests: one queue writes pages, the other reads them. They are in the thread's heap,
 * where commands reach them too.
 *
 * @module
 */

import { type Chain, defineDevice } from "../../../mod.ts";

/** Messages from the control half to the data half. */
type Message =
  | { kind: "pages" }
  | { kind: "erase"; page: number }
  /** Answered when the page has been written. */
  | { kind: "await"; page: number }
  /** Posts this number of messages; the answer is how many were sent. */
  | { kind: "flood"; messages: number }
  /** Answered with a value that cannot be copied, a promise of it, or by throwing it. */
  | { kind: "uncopied"; how: "now" | "late" | "thrown" };

/** The notebook. */
export default defineDevice({
  name: "notebook",
  deviceId: 42,
  about: "Keeps pages of text",
  module: import.meta.url,
  threads: "one",
  queues: {
    writeq: { about: "A byte for the page, then its text", family: "pair" },
    readq: { about: "A byte for the page, answered with its text", family: "pair" },
  },

  open({ post }) {
    const written: unknown[] = [];
    const drained = Promise.withResolvers<void>();
    const command = (about: string, messageOf: (body: unknown) => Message) => ({
      about,
      run: async (body: unknown) => ({ answers: await post(messageOf(body)) }),
    });
    return {
      queues: { pair: 2 },
      commands: {
        pages: command("The pages that are written", () => ({ kind: "pages" })),
        erase: command("Erases a page", (page) => ({ kind: "erase", page: Number(page) })),
        await: command("Waits for a page", (page) => ({ kind: "await", page: Number(page) })),
        drain: { about: "Ends the flood", run: () => drained.resolve() },
        flood: command("Posts messages", (body) => ({ kind: "flood", messages: Number(body) })),
        uncopied: command("Fails", (body) => ({ kind: "uncopied", how: body as "now" })),
      },
      async onMessage(message) {
        if (message !== "flood") return void written.push(message);
        await drained.promise;
        throw new Error("Expected no flood");
      },
      report: () => ({ written }),
    };
  },

  handlers({ post }) {
    const pages = new Map<number, Uint8Array>();
    const awaited = new Map<number, PromiseWithResolvers<string>>();
    function bytesOf({ readable, readableBytes }: Chain): Uint8Array {
      const bytes = new Uint8Array(readableBytes);
      readable.read(0, bytes);
      return bytes;
    }
    return {
      queues: {
        writeq(chain, { index, ordinal }) {
          const [page, ...text] = bytesOf(chain);
          pages.set(page, Uint8Array.from(text));
          awaited.get(page)?.resolve(`page ${page}`);
          post({ page, index, ordinal });
          return 0;
        },
        readq: (chain) => {
          const [page] = bytesOf(chain);
          return chain.writable.write(0, pages.get(page) ?? new Uint8Array());
        },
      },
      onMessage(value) {
        const message = value as Message;
        switch (message.kind) {
          case "pages":
            return [...pages.keys()];
          case "erase":
            if (pages.delete(message.page)) return;
            throw new RangeError(`Expected a page that is written, got ${message.page}`);
          case "await": {
            const waiting = awaited.get(message.page) ?? Promise.withResolvers<string>();
            awaited.set(message.page, waiting);
            return waiting.promise;
          }
          case "flood":
            return Array.from({ length: message.messages }, () => post("flood"))
              .filter((isSent) => isSent).length;
          case "uncopied":
            if (message.how === "thrown") throw Symbol("torn");
            return message.how === "late" ? Promise.resolve(() => {}) : () => {};
        }
      },
      report: () => ({ pages: pages.size }),
    };
  },
});
