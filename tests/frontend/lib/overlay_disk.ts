/**
 * An overlay without a device: its store, attached to memory of this process.
 *
 * @module
 */

import { defaultOptions } from "../../../src/virtio/options.ts";
import { type BlkOptions, blkOptions } from "../../../backends/blk/options.ts";
import type {
  AnyOpenStore,
  Store,
  StoreHandle,
  StoreRequest,
} from "../../../backends/blk/store.ts";
import { attachStore, openStore } from "../../../backends/blk/stores.ts";
import { attachOverlayStore } from "../../../backends/blk/overlay/overlay_store.ts";
import { LATER, Parts } from "../../../mod.ts";
import { addressOf, errnoName, pinnedBuffer, watch } from "../../../src/linux/mod.ts";
import type { SectorDisk } from "./sector_load.ts";

const MEMORY_BYTES = 2 ** 23;
const SLOT_BYTES = 2 ** 16;

/** Opens what `vhostd blk` would with these options. */
export async function openDisk(options: Partial<BlkOptions>): Promise<AnyOpenStore> {
  const values = { ...defaultOptions(blkOptions), io: "sync", ...options } as BlkOptions;
  return await openStore(values, { log() {}, resized() {} });
}

/** Attaches to an overlay, as a thread does. */
export async function attachDisk(
  { handle }: AnyOpenStore,
  wrap: (store: Store, handle: StoreHandle) => Store = (store) => store,
): Promise<SectorDisk & Disposable> {
  const u8 = new Uint8Array(pinnedBuffer(MEMORY_BYTES));
  const memory = {
    ...{ u8, base: addressOf(u8) },
    // The upper half is the store's.
    scratch: () => MEMORY_BYTES / 2,
  };
  const waiting = new Map<StoreRequest, (result: number) => void>();
  const host = {
    ...{ memory, io: undefined, watch, flush() {}, notice: console.error },
    keep: <T>(promise: Promise<T>) => promise,
    done: (request: StoreRequest, result: number) => waiting.get(request)!(result),
  };
  if (handle.kind !== "overlay") throw new TypeError(`Expected an overlay, got ${handle.kind}`);
  const store = await attachOverlayStore(
    handle,
    host,
    async (handle, host) => wrap(await attachStore(handle, host), handle),
  );
  const free = Array.from({ length: MEMORY_BYTES / 2 / SLOT_BYTES }, (_, i) => i * SLOT_BYTES);
  const perform = async (
    sector: number,
    bytes: number,
    carryOut: (request: StoreRequest) => ReturnType<Store["read"]>,
    prepare: (slot: number) => void = () => {},
  ): Promise<Uint8Array> => {
    const slot = free.pop()!;
    prepare(slot);
    const data = new Parts(u8);
    // In two parts, and not from the first byte on.
    data.push(slot, 100);
    data.push(slot + 100, SLOT_BYTES - 100);
    const request = { data, dataOffset: 16, offset: sector * 512, bytes };
    const { promise, resolve } = Promise.withResolvers<number>();
    waiting.set(request, resolve);
    let result = await carryOut(request);
    if (result === LATER) result = await promise;
    waiting.delete(request);
    const content = u8.slice(slot + 16, slot + 16 + bytes);
    free.push(slot);
    if (result !== 0) throw new Error(`Expected success, got ${errnoName(result)}`);
    return content;
  };
  return {
    read: (sector, count) => perform(sector, count * 512, (request) => store.read(request)),
    async write(sector, bytes) {
      await perform(
        sector,
        bytes.length,
        (request) => store.write(request),
        (slot) => u8.set(bytes, slot + 16),
      );
    },
    async writeZeroes(sector, count, unmap) {
      await perform(sector, count * 512, (request) => store.writeZeroes(request, unmap));
    },
    async discard(sector, count) {
      await perform(sector, count * 512, (request) => store.discard(request));
    },
    async flush() {
      await perform(0, 0, (request) => store.flush(request));
    },
    [Symbol.dispose]: () => store.close?.(),
  };
}
