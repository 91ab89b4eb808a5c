/**
 * A store in TypeScript, as the block device has it.
 *
 * @module
 */

import { loadDefault, type OptionValues, parseOptionList } from "../../../mod.ts";
import { Errno, LinuxError } from "../../../src/linux/mod.ts";
import {
  FILE_LIMITS,
  type ModuleHandle,
  type OpenStore,
  type Store,
  type StoreRequest,
  type StoreResult,
  type ThreadHost,
} from "../store.ts";
import type { StoreAnswer, StoreContext, StoreDefinition } from "./define_store.ts";

/**
 * Opens the store of a module.
 *
 * @param options The value of `--store-options`.
 * @throws {Error} When it cannot be loaded or opened, or is none.
 * @throws {OptionError} When it does not take the options.
 */
export async function openModuleStore(
  path: string,
  { options = "", readOnly, log }: {
    options?: string;
    readOnly: boolean;
    log(message: string): void;
  },
): Promise<OpenStore> {
  const { url, value } = await loadDefault("store", path);
  const store = value as Partial<StoreDefinition> | undefined;
  if (typeof store?.open !== "function" || typeof store.read !== "function") {
    throw new Error(
      `Expected a store as the default export of ${path}; ` +
        "write export default defineStore({ open() { … }, read(request) { … } })",
    );
  }
  const values = parseOptionList("store-options", path, store.options ?? {}, options);
  const facts = await store.open(values as OptionValues<Record<never, never>>, log);
  const blockBytes = facts?.blockBytes ?? FILE_LIMITS.logicalBlockBytes;
  if (!Number.isSafeInteger(facts?.bytes) || !Number.isInteger(Math.log2(blockBytes))) {
    throw new Error(
      `Expected open() of ${path} to return the size of the disk as bytes, and a power of 2 if ` +
        `any as blockBytes; got ${Deno.inspect(facts, { depth: 1, compact: true })}`,
    );
  }
  let { bytes } = facts;
  const cannotWrite = readOnly || store.write === undefined;
  return {
    kind: `store ${path}`,
    abilities: {
      ...FILE_LIMITS,
      logicalBlockBytes: blockBytes,
      readOnly: cannotWrite,
      durable: store.flush !== undefined,
      discard: !cannotWrite && store.discard !== undefined,
      writeZeroes: !cannotWrite && store.writeZeroes !== undefined,
      unmap: !cannotWrite && store.writeZeroes !== undefined,
      isOneThread: true,
    },
    handle: { kind: "module", url, options: values, shared: facts.shared },
    bytes: () => bytes,
    ...facts.resize !== undefined && {
      resize(wanted: number) {
        facts.resize!(wanted);
        bytes = wanted;
      },
    },
    describe: () => facts.report?.() ?? {},
    [Symbol.dispose]: () => facts.close?.(),
  };
}

/** Attaches the queue thread to the store of a module. */
export async function attachModuleStore(handle: ModuleHandle, host: ThreadHost): Promise<Store> {
  const { default: store } = await import(handle.url) as {
    default: StoreDefinition<Record<never, never>, unknown>;
  };
  const { options, shared } = handle;
  const context: StoreContext = { ...host, options: options as StoreContext["options"], shared };
  return new ModuleStore(store, await store.attach?.(context) ?? context, host);
}

/** Has the functions of a module carry requests out. */
class ModuleStore implements Store {
  readonly submit: (() => void) | undefined;
  readonly #store: StoreDefinition<Record<never, never>, unknown>;
  readonly #state: unknown;
  readonly #host: ThreadHost;

  constructor(
    store: StoreDefinition<Record<never, never>, unknown>,
    state: unknown,
    host: ThreadHost,
  ) {
    this.#store = store;
    this.#state = state;
    this.#host = host;
    if (store.submit !== undefined) this.submit = () => store.submit!(state);
  }

  read(request: StoreRequest): StoreResult {
    try {
      return this.#result(this.#store.read(request, this.#state));
    } catch (error) {
      return this.#failed(error);
    }
  }

  write(request: StoreRequest): StoreResult {
    try {
      return this.#result(this.#store.write!(request, this.#state));
    } catch (error) {
      return this.#failed(error);
    }
  }

  flush(request: StoreRequest): StoreResult {
    try {
      return this.#result(this.#store.flush?.(request, this.#state));
    } catch (error) {
      return this.#failed(error);
    }
  }

  discard(request: StoreRequest): StoreResult {
    try {
      return this.#result(this.#store.discard!(request, this.#state));
    } catch (error) {
      return this.#failed(error);
    }
  }

  writeZeroes(request: StoreRequest, unmap: boolean): StoreResult {
    // A driver may have negotiated with an earlier version of the module
    const { writeZeroes } = this.#store;
    if (writeZeroes === undefined) return Errno.EOPNOTSUPP;
    try {
      return this.#result(writeZeroes(request, unmap, this.#state));
    } catch (error) {
      return this.#failed(error);
    }
  }

  close(): void {
    this.#store.close?.(this.#state);
  }

  #result(answer: StoreAnswer): StoreResult {
    if (typeof answer === "number") return answer;
    if (answer === undefined) return 0;
    return answer.then((result) => result ?? 0, (error) => this.#failed(error));
  }

  /** Tells of an error, and returns its errno. */
  #failed(error: unknown): number {
    if (error instanceof LinuxError) return error.errno;
    const why = error instanceof Error ? `${error.name}: ${error.message}` : Deno.inspect(error);
    this.#host.notice({ what: "The store failed on a request", why });
    return Errno.EIO;
  }
}
