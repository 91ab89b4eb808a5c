/**
 * A disk in a Ceph cluster, by librbd: `vhostd blk rbd:POOL/IMAGE`.
 *
 * @module
 */

import { defineStore } from "../module/mod.ts";
import { RbdImage } from "./image.ts";
import { DISCARD, FLUSH, RbdQueue, READ, THICK_ZEROES, WRITE, ZEROES } from "./queue.ts";
import { parseRbdName } from "./rbd_name.ts";

/** How often the size is looked at, in milliseconds: librbd knows of a change by itself. */
const SIZE_PERIOD_MS = 1000;

export default defineStore({
  options: {
    exclusive: {
      type: "flag",
      about:
        "Keep the image's exclusive lock, so that no other client writes to it; by default a " +
        "client that asks for the lock gets it, as with QEMU",
    },
    connectTimeout: {
      type: "number",
      placeholder: "SECONDS",
      least: 1,
      most: 3600,
      default: 15,
      about: "How long opening the image may take",
    },
    timeout: {
      type: "number",
      placeholder: "SECONDS",
      least: 0,
      most: 86400,
      default: 0,
      about: "Time after which a request that the cluster does not answer fails; 0: it waits",
    },
  },

  async open({ exclusive, connectTimeout, timeout }, opening) {
    const name = parseRbdName(opening.name);
    const readOnly = opening.readOnly || name.snapshot !== undefined;
    const image = await RbdImage.open(name, { readOnly, exclusive, connectTimeout, timeout })
      .catch((cause: Error) => {
        throw new Error(`Cannot open ${opening.name}: ${cause.message}`, { cause });
      });
    let bytes = await image.bytes();

    async function look(): Promise<void> {
      try {
        const now = await image.bytes();
        if (now !== bytes) opening.resized(bytes = now);
      } catch (error) {
        return opening.log(`${opening.name}: ${(error as Error).message}`);
      }
      if (!isClosed) timer = setTimeout(look, SIZE_PERIOD_MS);
    }
    let isClosed = false;
    let timer = setTimeout(look, SIZE_PERIOD_MS);

    return {
      bytes,
      shared: { handle: image.handle, completions: image.completions.number },
      without: readOnly ? ["write", "flush", "discard", "writeZeroes"] : [],
      ...!readOnly && {
        async resize(wanted: number) {
          await image.resize(wanted);
          bytes = wanted;
        },
      },
      report: () => ({ pool: name.pool, namespace: name.namespace, image: name.image }),
      async close() {
        isClosed = true;
        clearTimeout(timer);
        await image.close();
      },
    };
  },

  attach: (context) => new RbdQueue(context),
  read: (request, queue) => queue.begin(request, READ),
  write: (request, queue) => queue.begin(request, WRITE),
  flush: (request, queue) => queue.begin(request, FLUSH),
  discard: (request, queue) => queue.begin(request, DISCARD),
  writeZeroes: (request, unmap, queue) => queue.begin(request, unmap ? ZEROES : THICK_ZEROES),
});
