/**
 * Stops at every single store to some memory: what a process has stored when it
 * is killed can then be looked at, store by store.
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

type Numbers = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

/**
 * Until it is disposed of, `onStore` is called after each store, plain or by
 * Atomics, through a typed array that was made meanwhile over one of these
 * buffers. It may throw, which is how a crash is made.
 */
export function traceStores(
  buffers: ReadonlySet<ArrayBufferLike>,
  onStore: () => void,
): Disposable {
  const world = globalThis as unknown as Record<string, unknown>;
  const originals = new Map<string, unknown>([["Atomics", Atomics]]);
  const targets = new WeakMap<object, Numbers>();

  function traced(target: Numbers): Numbers {
    const proxy = new Proxy(target, {
      get(target, key) {
        const value = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        const method = value as (...values: unknown[]) => unknown;
        return (...values: unknown[]) => {
          const result = method.apply(target, values);
          if (key === "fill" || key === "set") onStore();
          return result;
        };
      },
      set(target, key, value) {
        Reflect.set(target, key, value, target);
        onStore();
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
      if (targets.has(array)) onStore();
      return value;
    },
  };
  return {
    [Symbol.dispose]() {
      for (const [name, original] of originals) world[name] = original;
    },
  };
}
