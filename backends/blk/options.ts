/**
 * The command line flags of the block device.
 *
 * @module
 */

import { type Options, type OptionValues, parseOption } from "../../mod.ts";
import { faultOptions } from "./faults/fault_plan.ts";
import { limitOptions } from "./limits/limits.ts";

/** The options of the block device. */
export const blkOptions = {
  blkFile: {
    type: "text",
    placeholder: "PATH",
    about:
      "Serve a raw disk image, a block device, the store that a module (PATH.ts) exports, or a " +
      "disk elsewhere: nbd:, nbds:, nbd+unix:, http:, https: or rbd:",
  },
  overlay: {
    type: "text",
    placeholder: "DELTA",
    about:
      "Copy on write: keep what the guest writes in this sparse file, made if there is none, " +
      "and only read the disk; without one, the disk that DELTA was made on",
  },
  storeOptions: {
    type: "text",
    placeholder: "NAME=VALUE,…",
    about: "Options of the module's store or of the disk elsewhere",
  },
  format: {
    type: "text",
    placeholder: "raw|overlay",
    choices: ["raw", "overlay"],
    needs: "blkFile",
    about:
      "The image is raw, whatever it begins with; otherwise one that looks like qcow2, vmdk, " +
      "gzip and so on is refused. Below a new --overlay: overlay, if it is one",
  },
  size: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 512,
    most: 2 ** 50,
    about: "Serve memory of this size, empty at the start; with --null, nothing of this size",
  },
  zoned: {
    type: "text",
    placeholder: "MODEL[,…]",
    needs: "size",
    about: "Divide it into zones: host-managed[,NAME=VALUE…], where NAME is size, capacity, " +
      "conventional, open or active",
  },
  null: {
    type: "flag",
    about: "Store nothing and answer at once, for measuring: reads leave the buffers as they are",
  },
  io: {
    type: "text",
    placeholder: "auto|uring|sync",
    choices: ["auto", "uring", "sync"],
    default: "auto",
    about: "How files are read and written: what the page cache has at once, the rest by " +
      "io_uring, files on tmpfs by copying (auto); all by io_uring; or by a system call each. " +
      "For a file, a block device or an --overlay",
  },
  cache: {
    type: "text",
    placeholder: "MODE",
    choices: ["writeback", "none", "writethrough", "directsync"],
    default: "writeback",
    about: "With the host's page cache (writeback) or without (none: O_DIRECT); writethrough and " +
      "directsync are the same two, and make each write durable when it is completed, " +
      "until the guest chooses write-back. Disks elsewhere that can flush take writethrough",
  },
  readOnly: { type: "flag", about: "Refuse writes" },
  lock: {
    type: "text",
    placeholder: "on|off",
    choices: ["on", "off"],
    default: "on",
    about: "Whether others are kept from writing to the file, by the locks that QEMU uses too. " +
      "For a file, a block device or an --overlay",
  },
  numQueues: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 256,
    about: "Offer N queues; by default one per processor of this machine",
  },
  serial: {
    type: "text",
    placeholder: "TEXT",
    about: "Serial number of up to 20 ASCII characters",
  },
  blockSize: {
    type: "number",
    unit: "bytes",
    placeholder: "BYTES",
    least: 512,
    most: 65536,
    about: "Logical block size, a power of 2; by default the block device's own, or 512",
  },
  discard: {
    type: "text",
    placeholder: "unmap|ignore",
    choices: ["unmap", "ignore"],
    default: "unmap",
    about: "Whether the guest's discards give space back",
  },
  ...limitOptions,
  ...faultOptions,
} as const satisfies Options;

/** The values of the options. */
export type BlkOptions = OptionValues<typeof blkOptions>;

/** The size that the body of a `resize` command names, if any. */
export function sizeOf(body: unknown): number | undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body !== "object" || Array.isArray(body)) {
    throw new TypeError(`Expected {"size": "2G"} or no body, got ${JSON.stringify(body)}`);
  }
  const { size, ...others } = body as { size?: unknown };
  const unknown = Object.keys(others)[0];
  if (unknown !== undefined) throw new TypeError(`Expected only "size", got ${unknown}`);
  if (size === undefined) return undefined;
  try {
    if (typeof size !== "string" && typeof size !== "number") throw new TypeError();
    return parseOption("size", blkOptions.size, String(size)) as number;
  } catch (cause) {
    throw new TypeError(`Expected a size such as 1073741824 or "1G", got ${JSON.stringify(size)}`, {
      cause,
    });
  }
}
