/**
 * The command line flags of the block device.
 *
 * @module
 */

import type { Options, OptionValues } from "../../mod.ts";

/** The options of the block device. */
export const blkOptions = {
  blkFile: {
    type: "text",
    placeholder: "PATH",
    about: "Serve a raw disk image or a block device, or the store that a module (PATH.ts) exports",
  },
  storeOptions: {
    type: "text",
    placeholder: "NAME=VALUE,…",
    needs: "blkFile",
    about: "Options of the module's store",
  },
  size: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 512,
    most: 2 ** 50,
    about: "Serve memory of this size, empty at the start; with --null, nothing of this size",
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
    needs: "blkFile",
    about: "How files are read and written: what the page cache has at once, the rest by " +
      "io_uring, files on tmpfs by copying (auto); all by io_uring; or by a system call each",
  },
  cache: {
    type: "text",
    placeholder: "writeback|none",
    choices: ["writeback", "none"],
    default: "writeback",
    needs: "blkFile",
    about: "Whether files go through the host's page cache; none is O_DIRECT",
  },
  readOnly: { type: "flag", about: "Refuse writes" },
  lock: {
    type: "text",
    placeholder: "on|off",
    choices: ["on", "off"],
    default: "on",
    needs: "blkFile",
    about: "Whether others are kept from writing to the file, by the locks that QEMU uses too",
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
} as const satisfies Options;

/** The values of the options. */
export type BlkOptions = OptionValues<typeof blkOptions>;
