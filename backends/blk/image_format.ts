/**
 * Images that are not raw: they are refused, with the program that can serve them.
 *
 * A guest can write any of these bytes onto its raw disk. So nothing but this refusal follows from
 * them, and `--format=raw` overrides it.
 *
 * @module
 */

import { OVERLAY_MAGIC } from "./overlay/format.ts";

/** The bytes of an image's first part, and of its last one, that its format shows in. */
export const FORMAT_BYTES = 512;

interface Format {
  /** Its name, as `qemu-nbd --format` has it if `unpack` is absent. */
  readonly name: string;
  /** What it begins with, or what is at `at`, a character per byte. */
  readonly begins?: string;
  readonly at?: number;
  /** What its last 512 bytes begin with. */
  readonly ends?: string;
  /** The program that unpacks it. */
  readonly unpack?: string;
  /** The flag of `vhostd blk` that serves it. */
  readonly flag?: string;
}

// A disk that begins with LUKS or ISO 9660 is as raw as any other: the guest reads it.
const FORMATS: readonly Format[] = [
  { name: "overlay", begins: OVERLAY_MAGIC, flag: "--overlay" },
  { name: "qcow", begins: "QFI\xfb\0\0\0\x01" },
  { name: "qcow2", begins: "QFI\xfb" },
  { name: "qed", begins: "QED\0" },
  { name: "vmdk", begins: "KDMV" },
  { name: "vmdk", begins: "COWD" },
  { name: "vmdk", begins: "# Disk DescriptorFile" },
  { name: "vdi", begins: "\x7f\x10\xda\xbe", at: 64 },
  { name: "vhdx", begins: "vhdxfile" },
  { name: "vpc", begins: "conectix" },
  { name: "parallels", begins: "WithoutFreeSpace" },
  { name: "parallels", begins: "WithouFreSpacExt" },
  { name: "bochs", begins: "Bochs Virtual HD Image" },
  { name: "cloop", begins: "#!/bin/sh\n#V2.0 Format\n" },
  { name: "dmg", ends: "koly" },
  { name: "gzip", begins: "\x1f\x8b\x08", unpack: "gzip -dk" },
  { name: "xz", begins: "\xfd7zXZ\0", unpack: "xz -dk" },
  { name: "zstd", begins: "\x28\xb5\x2f\xfd", unpack: "zstd -d" },
  { name: "bzip2", begins: "BZh", unpack: "bzip2 -dk" },
];

/**
 * Expects that an image is raw.
 *
 * @param name What the person named it.
 * @param first Its first {@linkcode FORMAT_BYTES} bytes, or all of fewer.
 * @param last Its last {@linkcode FORMAT_BYTES} bytes; leave it out where reading them is costly.
 * @throws {Error} When it looks like an image of another format; says how to serve that.
 */
export function expectRaw(name: string, first: Uint8Array, last?: Uint8Array): void {
  const format = FORMATS.find(({ begins, at = 0, ends }) =>
    begins !== undefined ? hasText(first.subarray(at), begins) : last && hasText(last, ends!)
  );
  if (format === undefined) return;
  const remedy = format.flag !== undefined
    ? `if you made it by --overlay, serve it by vhostd blk ${format.flag}=${name}, and lay another ` +
      "overlay on it by --format=overlay"
    : format.unpack === undefined
    ? `serve it by qemu-nbd --persistent --format=${format.name} --socket=/tmp/nbd.sock ${name}, ` +
      "and that by vhostd blk 'nbd+unix:///?socket=/tmp/nbd.sock'"
    : `unpack it: ${format.unpack} ${name}`;
  throw new Error(
    `${name} looks like an image in the format ${format.name}, not like a raw one; ${remedy}; ` +
      "if it is a raw disk with these bytes, add --format=raw",
  );
}

function hasText(bytes: Uint8Array, text: string): boolean {
  if (bytes.length < text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (bytes[i] !== text.charCodeAt(i)) return false;
  }
  return true;
}
