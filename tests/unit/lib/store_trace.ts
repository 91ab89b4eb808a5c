/**
 * Traces every store to some memory, so that a test can check the state after a crash at each.
 *
 * @module
 */

const KINDS = [
  "Uint8Array",
  "Uint16Array",
  "Uint32Array",
  "Int32Array",
  "Float64Array",
] as const;

/** A plain store, and the previous value. */
export interface PlainStore {
  buffer: ArrayBufferLike;
  at: number;
  before: Uint8Array;
}

type Numbers = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

/**
 * Until it is disposed of, calls `onStore` after each store, plain or by Atomics, through a typed
 * array that was made meanwhile over one of these buffers. `onStore` may throw to simulate a crash.
 * It gets the plain stores since the last one by Atomics, in order: a compiler may delay them.
 */
export function traceStores(
  buffers: ReadonlySet<ArrayBufferLike>,
  onStore: (plain: readonly PlainStore[]) => void,
): Disposable {
  const world = globalThis as unknown as Record<string, unknown>;
  const originals = new Map<string, unknown>([["Atomics", Atomics]]);
  const plain: PlainStore[] = [];
  const targets = new WeakMap<object, Numbers>();

  const bytes = Uint8Array;

  function stop(): void {
    try {
      onStore(plain);
    } catch (error) {
      // Stores after the crash are dropped.
      plain.length = 0;
      throw error;
    }
  }

  function traced(target: Numbers): Numbers {
    const proxy = new Proxy(target, {
      get(target, key) {
        const value = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        const method = value as (...values: unknown[]) => unknown;
        return (...values: unknown[]) => {
          const result = method.apply(target, values);
          if (key === "fill" || key === "set") stop();
          return result;
        };
      },
      set(target, key, value) {
        const at = target.byteOffset + Number(key) * target.BYTES_PER_ELEMENT;
        const before = new bytes(target.buffer, at, target.BYTES_PER_ELEMENT).slice();
        plain.push({ buffer: target.buffer, at, before });
        Reflect.set(target, key, value, target);
        stop();
        return true;
      },
    });
    targets.set(proxy, target);
    return proxy;
  }

  for (const kind of KINDS) {
    const original = globalThis[kind] as unknown as new (...values: unknown[]) => Numbers;
    originals.set(kind, original);
    world[kind] = new Proxy(original, {
      construct(target, values) {
        const made = new target(...values);
        return buffers.has(values[0]) ? traced(made) : made;
      },
    });
  }
  const { load, store } = Atomics;
  const behind = (array: Numbers) => (targets.get(array) ?? array) as Int32Array;
  world.Atomics = {
    load: (array: Numbers, at: number) => load(behind(array), at),
    store(array: Numbers, at: number, value: number) {
      store(behind(array), at, value);
      if (targets.has(array)) {
        plain.length = 0;
        stop();
      }
      return value;
    },
  };
  return {
    [Symbol.dispose]() {
      for (const [name, original] of originals) world[name] = original;
    },
  };
}

/**
 * Undoes some of the plain stores, as if they were delayed. Stores to the same place stay in order.
 *
 * @param isLate Whether to delay the next store
 * @param copies The copy of each buffer
 */
export function delayStores(
  plain: readonly PlainStore[],
  isLate: () => boolean,
  copies: ReadonlyMap<ArrayBufferLike, ArrayBuffer>,
): void {
  const made = new Set<string>();
  for (const { buffer, at, before } of plain.toReversed()) {
    const copy = copies.get(buffer)!;
    const place = `${buffer === plain[0].buffer} ${at}`;
    if (!made.has(place) && isLate()) new Uint8Array(copy).set(before, at);
    else made.add(place);
  }
}
