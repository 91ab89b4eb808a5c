/**
 * A store in memory that carries requests out when a batch is complete, and then answers all of it:
 * those of one kind by promises, the others by `done`. For tests.
 */
import {
  defineStore,
  LATER,
  type StoreAnswer,
  type StoreContext,
  type StoreRequest,
} from "../../../backends/blk/module/mod.ts";

const content = new Uint8Array(2 ** 26);

const options = {
  promises: {
    type: "text",
    placeholder: "write|flush",
    choices: ["write", "flush"],
    default: "flush",
    about: "What it answers by promises",
  },
} as const;

class Batch {
  readonly #context: StoreContext<typeof options>;
  #requests: { carryOut(): void; answer(): void }[] = [];

  constructor(context: StoreContext<typeof options>) {
    this.#context = context;
  }

  add(kind: string, request: StoreRequest, carryOut: () => void): StoreAnswer {
    if (kind !== this.#context.options.promises) {
      this.#requests.push({ carryOut, answer: () => this.#context.done(request, 0) });
      return LATER;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#requests.push({ carryOut, answer: resolve });
    return promise;
  }

  submit(): void {
    for (const { carryOut, answer } of this.#requests.splice(0)) {
      carryOut();
      answer();
    }
    this.#context.flush();
  }
}

export default defineStore({
  options,
  open: () => ({ bytes: content.length }),
  attach: (context) => new Batch(context),
  read: (request, batch) =>
    batch.add("read", request, () => {
      const { data, dataOffset, offset, bytes } = request;
      data.write(dataOffset, content.subarray(offset, offset + bytes));
    }),
  write: (request, batch) =>
    batch.add("write", request, () => {
      const { data, dataOffset, offset, bytes } = request;
      data.read(dataOffset, content.subarray(offset, offset + bytes));
    }),
  flush: (request, batch) => batch.add("flush", request, () => {}),
  submit: (batch) => batch.submit(),
});
