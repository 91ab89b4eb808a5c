/** Which images are no raw ones. */
import { assertStringIncludes, assertThrows } from "@std/assert";
import { expectRaw, FORMAT_BYTES } from "../../backends/blk/image_format.ts";

/** A part of an image with a text at a place. */
function part(text: string, at = 0): Uint8Array {
  const bytes = new Uint8Array(FORMAT_BYTES);
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  return bytes;
}

const refused: [name: string, first: Uint8Array, last?: Uint8Array][] = [
  ["qcow", part("QFI\xfb\0\0\0\x01")],
  ["qcow2", part("QFI\xfb\0\0\0\x02")],
  ["qcow2", part("QFI\xfb\0\0\0\x03")],
  ["qed", part("QED\0")],
  ["vmdk", part("KDMV\x01")],
  ["vmdk", part("COWD")],
  ["vmdk", part("# Disk DescriptorFile\nversion=1")],
  ["vdi", part("\x7f\x10\xda\xbe", 64)],
  ["vhdx", part("vhdxfile")],
  ["vpc", part("conectix")],
  ["parallels", part("WithoutFreeSpace")],
  ["parallels", part("WithouFreSpacExt")],
  ["cloop", part("#!/bin/sh\n#V2.0 Format\nmodprobe cloop")],
  ["dmg", part(""), part("koly")],
  ["gzip", part("\x1f\x8b\x08")],
  ["xz", part("\xfd7zXZ\0")],
  ["zstd", part("\x28\xb5\x2f\xfd")],
  ["bzip2", part("BZh9")],
];

for (const [name, first, last] of refused) {
  Deno.test(`expectRaw() refuses an image in the format ${name}, and says what to do`, () => {
    const { message } = assertThrows(() => expectRaw("/a.img", first, last), Error);
    assertStringIncludes(message, `/a.img looks like an image in the format ${name}`);
    assertStringIncludes(message, "--format=raw");
    assertStringIncludes(
      message,
      ["gzip", "xz", "zstd", "bzip2"].includes(name) ? " /a.img" : `qemu-nbd --persistent`,
    );
  });
}

Deno.test("expectRaw() takes raw images: partitioned, encrypted, a file system, of a few bytes", () => {
  expectRaw("a", part("\x55\xaa", 510), part("EFI PART"));
  expectRaw("a", part("LUKS\xba\xbe\0\x02"));
  expectRaw("a", part("#!/bin/sh\n"));
  expectRaw("a", part("\x53\xef", 56), part(""));
  expectRaw("a", new Uint8Array(2), new Uint8Array(2));
  expectRaw("a", new Uint8Array());
});
