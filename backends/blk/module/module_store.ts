/**
 * A store in TypeScript, as the block device has it.
 *
 * @module
 */

import { LATER, loadDefault, type OptionValues, parseOptionList } from "../../../mod.ts";
import { Errno, LinuxError } from "../../../src/linux/mod.ts";
import {
  FILE_LIMITS,
  type ModuleHandle,
  type OpenModuleStore,
  type Store,
  type StoreRequest,
  type StoreResult,
  type ThreadHost,
} from "../store.ts";
import type { Lifetime } from "../lifetime.ts";
import type { StoreContext, StoreDefinition } from "./define_store.ts";

/** The largest errno of Linux. */
const MAX_ERRNO = 133;

/** The block sizes that a store may have, in bytes; see `--block-size`. */
const LEAST_BLOCK_BYTES = 512, MOST_BLOCK_BYTES = 65_536;

/**
 * Opens the store of a module, or one of ours that is made as a module.
 *
 * @param name What the person named: the module, or what a store of ours serves.
 * @param url The module where `name` is not it.
 * @throws {Error} When it cannot be loaded or opened, or is none.
 * @throws {OptionError} When it does not take the options.
 */
export async function openModuleStore(
  name: string,
  options: string | undefined,
  opening: {
    readOnly: boolean;
    format?: "raw";
    log(message: string): void;
    resized(): void;
  },
  ours?: string,
): Promise<OpenModuleStore> {
  const { url, value } = await loadDefault("store", ours ?? name);
  const store = value as Partial<StoreDefinition> | undefined;
  if (typeof store?.open !== "function" || typeof store.read !== "function") {
    throw new Error(
      `Expected a store as the default export of ${name}; ` +
        "write export default defineStore({ open() { … }, read(request) { … } })",
    );
  }
  const { readOnly, format, log } = opening;
  const values = parseOptionList("store-options", name, store.options ?? {}, options ?? "");
  let bytes = NaN;
  const facts = await store.open(values as OptionValues<Record<never, never>>, {
    ...{ name, readOnly, format, log },
    resized(now) {
      if (!isSize(now)) return log(`Expected resized() with a size in bytes, got ${shown(now)}`);
      bytes = now;
      opening.resized();
    },
  });
  bytes = facts?.bytes;
  const blockBytes = facts?.blockBytes ?? FILE_LIMITS.logicalBlockBytes;
  const isBlockSize = Number.isInteger(Math.log2(blockBytes)) &&
    blockBytes >= LEAST_BLOCK_BYTES && blockBytes <= MOST_BLOCK_BYTES;
  if (!isSize(bytes) || !isBlockSize) {
    await facts?.close?.();
    throw new Error(
      `Expected open() of ${name} to return the size of the disk as bytes, and if any as ` +
        `blockBytes a power of 2 from ${LEAST_BLOCK_BYTES} to ${MOST_BLOCK_BYTES}; got ${
          shown(facts)
        }`,
    );
  }
  const { without = [], identity } = facts;
  const isText = identity === undefined || typeof identity === "string";
  if (!isText || !Array.isArray(facts.without ?? [])) {
    await facts.close?.();
    throw new Error(
      `Expected open() of ${name} to return, if any, identity as text and without as a list; got ` +
        shown(facts),
    );
  }
  const has = (ability: typeof without[number]) =>
    store[ability] !== undefined && !without.includes(ability);
  const canWrite = !readOnly && has("write");
  return {
    kind: `store ${name}`,
    abilities: {
      ...FILE_LIMITS,
      logicalBlockBytes: blockBytes,
      readOnly: !canWrite,
      durable: has("flush"),
      discard: canWrite && has("discard"),
      writeZeroes: canWrite && has("writeZeroes"),
      unmap: canWrite && has("writeZeroes"),
      secureErase: canWrite && has("secureErase"),
      lifetime: has("lifetime"),
      isOneThread: true,
    },
    handle: {
      kind: "module",
      url,
      isOurs: ours !== undefined,
      blockBytes,
      options: values,
      shared: facts.shared,
    },
    bytes: () => bytes,
    ...identity !== undefined && { identity: () => identity },
    ...facts.resize !== undefined && {
      async resize(wanted: number) {
        await facts.resize!(wanted);
        bytes = wanted;
      },
    },
    describe: () => facts.report?.() ?? {},
    [Symbol.asyncDispose]: async () => await facts.close?.(),
  };
}

/** Attaches the queue thread to the store of a module. */
export async function attachModuleStore(handle: ModuleHandle, host: ThreadHost): Promise<Store> {
  const { value } = await loadDefault("store", handle.url);
  const store = value as StoreDefinition<Record<never, never>, unknown>;
  const { options, shared, blockBytes, isOurs } = handle;
  const answers = isOurs ? undefined : new LaterAnswers(host);
  if (!isOurs && "WorkerGlobalScope" in globalThis) outliveErrors(host);
  const context: StoreContext = {
    ...host,
    ...answers && { done: (request, result) => answers.done(request, result) },
    ...{ options: options as StoreContext["options"], shared },
  };
  return new ModuleStore(
    store,
    await store.attach?.(context) ?? context,
    host,
    blockBytes,
    answers,
  );
}

/**
 * Reports errors outside of the store's functions, such as those of a promise that is not awaited:
 * they would end the thread, and with it the disk.
 */
function outliveErrors(host: ThreadHost): void {
  const tell = (event: Event, error: unknown) => {
    event.preventDefault();
    host.notice({
      what: "The store failed outside of its functions",
      why: messageOf(error),
      remedy: "a request that waits for it stays unanswered; catch the error, and answer by done()",
    });
  };
  addEventListener("unhandledrejection", (event) => tell(event, event.reason));
  addEventListener("error", (event) => tell(event, event.error));
}

/**
 * Requests that a store of a person's has answered with `LATER`. It completes each of them once,
 * which may be before it returns `LATER`.
 */
class LaterAnswers {
  readonly #host: ThreadHost;
  readonly #pending = new Set<StoreRequest>();
  /** Results that came while functions of the store ran, and the number of those functions. */
  readonly #early = new Map<StoreRequest, number>();
  #running = 0;

  constructor(host: ThreadHost) {
    this.#host = host;
  }

  /** The store is asked to carry a request out. */
  begin(): void {
    this.#running++;
  }

  /** It has returned; returns what became of the request. */
  end(request: StoreRequest, result: StoreResult): StoreResult {
    this.#running--;
    const early = this.#early.size > 0 ? this.#takeEarly(request, result) : undefined;
    if (result !== LATER) return result;
    if (early === undefined) this.#pending.add(request);
    return early ?? LATER;
  }

  #takeEarly(request: StoreRequest, result: StoreResult): number | undefined {
    const early = this.#early.get(request);
    this.#early.delete(request);
    const isWrong = result !== LATER && early !== undefined ||
      this.#running === 0 && this.#early.size > 0;
    if (isWrong) this.#refuse();
    if (this.#running === 0) this.#early.clear();
    return early;
  }

  done(request: StoreRequest, result: unknown): void {
    const isPending = this.#pending.delete(request);
    if (!isPending && (this.#running === 0 || this.#early.has(request))) return this.#refuse();
    const outcome = isOutcome(result) ? result : wrongAnswer(this.#host, result);
    if (isPending) return this.#host.done(request, outcome);
    this.#early.set(request, outcome);
  }

  #refuse(): void {
    this.#host.notice({
      what: "The store called done() for a request that is not pending",
      why: "it was completed before, or not answered with LATER",
      remedy: "the call is ignored",
    });
  }
}

/** Carries requests out by the functions of a module. */
class ModuleStore implements Store {
  readonly submit: (() => void) | undefined;
  readonly #store: StoreDefinition<Record<never, never>, unknown>;
  readonly #state: unknown;
  readonly #host: ThreadHost;
  readonly #blockBytes: number;
  readonly #answers: LaterAnswers | undefined;

  constructor(
    store: StoreDefinition<Record<never, never>, unknown>,
    state: unknown,
    host: ThreadHost,
    blockBytes: number,
    answers: LaterAnswers | undefined,
  ) {
    this.#store = store;
    this.#state = state;
    this.#host = host;
    this.#blockBytes = blockBytes;
    this.#answers = answers;
    if (store.submit !== undefined) {
      this.submit = () => this.#attempt("submit", () => store.submit!(state));
    }
  }

  read(request: StoreRequest): StoreResult {
    if (!this.#isOfBlocks(request)) return Errno.EINVAL;
    this.#answers?.begin();
    try {
      return this.#result(request, this.#store.read(request, this.#state));
    } catch (error) {
      return this.#result(request, this.#failed(error));
    }
  }

  write(request: StoreRequest): StoreResult {
    if (!this.#isOfBlocks(request)) return Errno.EINVAL;
    this.#answers?.begin();
    try {
      return this.#result(request, this.#store.write!(request, this.#state));
    } catch (error) {
      return this.#result(request, this.#failed(error));
    }
  }

  flush(request: StoreRequest): StoreResult {
    this.#answers?.begin();
    try {
      return this.#result(request, this.#store.flush?.(request, this.#state));
    } catch (error) {
      return this.#result(request, this.#failed(error));
    }
  }

  discard(request: StoreRequest): StoreResult {
    if (!this.#isOfBlocks(request)) return Errno.EINVAL;
    this.#answers?.begin();
    try {
      return this.#result(request, this.#store.discard!(request, this.#state));
    } catch (error) {
      return this.#result(request, this.#failed(error));
    }
  }

  writeZeroes(request: StoreRequest, unmap: boolean): StoreResult {
    // A driver may have negotiated with an earlier version of the module
    const { writeZeroes } = this.#store;
    if (writeZeroes === undefined) return Errno.EOPNOTSUPP;
    if (!this.#isOfBlocks(request)) return Errno.EINVAL;
    this.#answers?.begin();
    try {
      return this.#result(request, writeZeroes(request, unmap, this.#state));
    } catch (error) {
      return this.#result(request, this.#failed(error));
    }
  }

  secureErase(request: StoreRequest): StoreResult {
    if (!this.#isOfBlocks(request)) return Errno.EINVAL;
    this.#answers?.begin();
    try {
      return this.#result(request, this.#store.secureErase!(request, this.#state));
    } catch (error) {
      return this.#result(request, this.#failed(error));
    }
  }

  async lifetime(): Promise<Lifetime> {
    try {
      const lifetime: unknown = await this.#store.lifetime!(this.#state);
      if (typeof lifetime === "object" && lifetime !== null) return lifetime as Lifetime;
      throw new TypeError(`Expected a lifetime, got ${shown(lifetime)}`);
    } catch (error) {
      throw new LinuxError("lifetime", this.#failed(error));
    }
  }

  cancel(): void {
    this.#attempt("cancel", () => this.#store.cancel?.(this.#state));
  }

  close(): void {
    this.#attempt("close", () => this.#store.close?.(this.#state));
  }

  /** Whether a request is of whole blocks: a driver can use sectors of 512 bytes, whatever it is told. */
  #isOfBlocks({ offset, bytes }: StoreRequest): boolean {
    const blockBytes = this.#blockBytes;
    return blockBytes === LEAST_BLOCK_BYTES ||
      offset % blockBytes === 0 && bytes % blockBytes === 0;
  }

  #result(request: StoreRequest, answer: unknown): StoreResult {
    const result = this.#resultOf(answer);
    return this.#answers === undefined ? result : this.#answers.end(request, result);
  }

  #resultOf(answer: unknown): StoreResult {
    if (answer === undefined) return 0;
    if (answer === LATER) return LATER;
    if (typeof (answer as PromiseLike<unknown> | null)?.then !== "function") {
      return this.#settled(answer);
    }
    return Promise.resolve(answer).then(this.#settled, this.#failed);
  }

  /** The result of what a function or its promise returned. */
  readonly #settled = (outcome: unknown): number =>
    isOutcome(outcome ??= 0) ? outcome : wrongAnswer(this.#host, outcome);

  /** Tells of an error, and returns its errno. */
  readonly #failed = (error: unknown): number => {
    if (error instanceof LinuxError) return error.errno;
    this.#host.notice({ what: "The store failed on a request", why: messageOf(error) });
    return Errno.EIO;
  };

  #attempt(name: string, action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#host.notice({ what: `The store failed in ${name}()`, why: messageOf(error) });
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : shown(error);
}

/** Whether a value is a size in bytes. */
function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Whether a value is 0 or an errno. */
function isOutcome(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_ERRNO;
}

/** Tells of an answer that is none, and returns the errno for the guest. */
function wrongAnswer(host: ThreadHost, answer: unknown): number {
  host.notice({
    what: "The store's answer about a request means nothing",
    why: `Expected 0, an errno up to ${MAX_ERRNO}, LATER or a promise, got ${shown(answer)}`,
  });
  return Errno.EIO;
}

function shown(value: unknown): string {
  return Deno.inspect(value, { depth: 1, compact: true }).replaceAll(/\s+/g, " ").slice(0, 100);
}
