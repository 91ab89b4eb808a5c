/** A store in TypeScript that stores nothing, to measure what the module itself costs. */
import { defineStore } from "../../backends/blk/module/mod.ts";

export default defineStore({
  options: {
    answers: {
      type: "text",
      placeholder: "now|promise",
      choices: ["now", "promise"],
      default: "now",
      about: "How it answers",
    },
  },
  open: () => ({ bytes: 256 * 2 ** 20 }),
  attach: ({ options }) => ({ isNow: options.answers === "now" }),
  read: (_, { isNow }) => isNow ? 0 : answer(),
  write: (_, { isNow }) => isNow ? 0 : answer(),
});

async function answer(): Promise<number> {
  await null;
  return 0;
}
