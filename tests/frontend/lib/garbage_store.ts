/** A store that breaks the contract of stores, each sector in another way, for tests. */
import { defineStore, LATER, type StoreRequest } from "../../../backends/blk/module/mod.ts";

/** Completes the request that is asked, later or now. */
interface Done {
  later(result: unknown): void;
  now(result: unknown): void;
}

type Answer = readonly [answer: (done: Done) => unknown, isGood: boolean];

/** What is answered about a read of the sector with this number, and whether the guest gets data. */
const ANSWERS: readonly Answer[] = [
  [() => 0, true],
  [() => Promise.resolve(Promise.resolve(Promise.resolve())), true],
  [(done) => (done.now(0), LATER), true],
  [(done) => (done.later(0), done.later(0), LATER), true],
  [(done) => (done.now(0), done.now(0), LATER), true],
  [(done) => (done.later(0), undefined), true],
  [(done) => (done.now(0), undefined), true],
  [() => void Promise.reject(new Error("Nobody awaits this")), true],
  [() =>
    void setTimeout(() => {
      throw new Error("Nobody catches this");
    }, 0), true],
  [() => ({ then: (resolve: (result: number) => void) => resolve(0) }), true],
  ...[NaN, -2, 512, 1.5, Infinity, "done", true, {}, 5n].flatMap((answer): Answer[] => [
    [() => answer, false],
    [() => Promise.resolve(answer), false],
    [(done) => (done.later(answer), LATER), false],
    [(done) => (done.now(answer), LATER), false],
  ]),
  [() => Promise.resolve(LATER), false],
  [(done) => (done.later(Promise.resolve(0)), LATER), false],
  [() => Promise.reject(), false],
  [() => {
    throw null;
  }, false],
];

/** By sector: whether the guest gets data. */
export const IS_GOOD = ANSWERS.map(([, isGood]) => isGood);

export default defineStore({
  open(_options, { resized }) {
    resized(512);
    return { bytes: 2 ** 20 };
  },
  // deno-lint-ignore no-explicit-any
  read(request: StoreRequest, { done, flush, keep }): any {
    const complete = done as (request: StoreRequest, result: unknown) => void;
    request.data.fill(7, request.dataOffset, request.bytes);
    return ANSWERS[request.offset / 512][0]({
      now: (result) => complete(request, result),
      later: (result) =>
        void keep(
          Promise.resolve().then(() => {
            complete(request, result);
            flush();
          }),
        ),
    });
  },
  submit() {
    throw new Error("It cannot submit");
  },
  lifetime: () => undefined as never,
});
