/**
 * Which flags of the block device go together, and with which disk.
 *
 * @module
 */

import { flagName, OptionError } from "../../mod.ts";
import type { BlkOptions } from "./options.ts";
import { isFileName } from "./store_name.ts";

/**
 * Checks what the options alone tell.
 *
 * @param given Those that the person gave.
 * @throws {OptionError} When they name no disk or several, or one has no effect on that disk.
 */
export function checkBlkOptions(options: BlkOptions, given: Partial<BlkOptions>): void {
  const { blkFile, overlay, size, null: isNull, format, cache } = options;
  if (overlay !== undefined && (isNull || size !== undefined)) {
    throw new OptionError("--overlay needs a disk below it, and neither --size nor --null");
  }
  if (blkFile !== undefined && isNull) {
    throw new OptionError("--blk-file and --null exclude each other");
  }
  if (blkFile !== undefined && size !== undefined) {
    throw new OptionError("--blk-file and --size exclude each other: a file has its own size");
  }
  if (blkFile === undefined && overlay === undefined && size === undefined) {
    throw new OptionError(
      isNull
        ? "--null needs a size, such as --null --size=1G"
        : "Expected what to serve: --blk-file=PATH, --size=SIZE (memory) or --null --size=SIZE",
    );
  }
  const isFile = blkFile !== undefined && isFileName(blkFile);
  const other = blkFile ?? (isNull ? "--null" : `--size=${size}`);
  if (format === "overlay" && overlay === undefined) {
    throw new OptionError(
      `--format=overlay is for a disk below an --overlay; serve it by --overlay=${blkFile}`,
    );
  }
  if (format === "overlay" && !isFile) {
    throw new OptionError(`--format=overlay is for a file, got ${other}; leave it out`);
  }
  // The file of an overlay is one too
  if (isFile || overlay !== undefined) return;
  const expectFile = (flag: string, more = "") => {
    throw new OptionError(
      `${flag} is for a file, a block device or an --overlay, got ${other}; leave it out${more}`,
    );
  };
  if (given.storeOptions !== undefined && blkFile === undefined) {
    throw new OptionError(
      `--store-options are for a store in TypeScript or a disk elsewhere, got ${other}; leave them out`,
    );
  }
  for (const name of ["io", "lock"] as const) {
    if (given[name] !== undefined) expectFile(`--${flagName(name)}`);
  }
  if (cache === "none") expectFile("--cache=none");
  if (cache === "directsync") expectFile("--cache=directsync", ", or give --cache=writethrough");
}
