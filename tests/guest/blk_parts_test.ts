/**
 * What Linux does with parts of the standard that QEMU's vhost-user-blk hides: zones, and erasing
 * beyond recovery. QEMU's generic device shows them.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { filesCommand, initrdWith } from "../../tools/guest/files.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { qemuOfVersion } from "../../tools/guest/programs.ts";
import { run } from "../../tools/lib/process.ts";
import { ToolError } from "../../tools/lib/tool_error.ts";
import { Backend, fails, negotiated, ok, steps, temporary } from "./lib/helpers.ts";

const ERASING = new URL("./lib/erasing_store.ts", import.meta.url).pathname;

/** A program of Debian's base system, and what it needs. */
const BLKZONE = [
  "/usr/sbin/blkzone",
  "/lib/x86_64-linux-gnu/libc.so.6",
  "/lib64/ld-linux-x86-64.so.2",
];
const blkzone = "/root/ld-linux-x86-64.so.2 --library-path /root /root/blkzone";

let why = "";
let qemu = "";
try {
  qemu = await qemuOfVersion("11.1");
} catch (error) {
  if (!(error instanceof ToolError)) throw error;
  why = ` (skipped: only QEMU 11.1 has the generic device. ${error.message})`;
}

Deno.test({
  name: `Linux keeps to the zones of a disk, and erases another beyond recovery${why}`,
  ignore: why !== "",
  async fn(t) {
    using zonedDirectory = temporary();
    using directory = temporary();
    await using zoned = await Backend.start("blk", [
      "--size=64M",
      "--zoned=host-managed,size=4M,capacity=3M,conventional=2,open=3,active=4",
      "--num-queues=1",
    ], zonedDirectory);
    await using erasing = await Backend.start("blk", [ERASING, "--num-queues=1"], directory);
    const subject = { name: "blk", deviceId: 2, configBytes: 96, queues: 1 };
    const frontend = qemuFrontend({ ...subject, offered: ["ZONED"] });
    const files = { from: BLKZONE, directory: directory.path };
    const options = { qemu, isKernelNewer: true };
    const [command, ...args] = await filesCommand(files, options);
    await run(command, args);
    await using guest = await Guest.boot({
      ...options,
      initrd: initrdWith(files),
      devices: [zoned, erasing].map((disk) => ({ ...disk.device(), frontend })),
    });
    const queue = (name: string) => ok(guest, `cat /sys/block/vda/queue/${name}`);
    const zone = async (number: number) =>
      await ok(guest, `${blkzone} report -o ${number * 8192} -c 1 /dev/vda`);
    const write = (sector: number) =>
      `dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct seek=${sector / 8} 2>&1`;

    await steps(t, {
      "the zones are those of the disk": async () => {
        assertEquals(await queue("zoned"), "host-managed");
        assertEquals(await queue("chunk_sectors"), "8192");
        assertEquals(await queue("nr_zones"), "16");
        assertEquals(await queue("max_open_zones"), "3");
        assertEquals(await queue("max_active_zones"), "4");
        assertEquals(await queue("zone_append_max_bytes"), String(3 * 2 ** 20));
        assertMatch(await zone(0), /type: 1\(CONVENTIONAL\)/);
        assertMatch(await zone(2), /cap 0x001800, wptr 0x000000.*zcond: 1\(em\)/);
      },

      "writes, openings and resets move them": async () => {
        await ok(guest, write(2 * 8192));
        assertMatch(await zone(2), /wptr 0x000008.*zcond: 2\(oi\)/);
        await ok(guest, write(0)); // anywhere in a conventional one
        await ok(guest, write(96));
        await ok(guest, `${blkzone} open -o ${3 * 8192} -c 1 /dev/vda`);
        assertMatch(await zone(3), /zcond: 3\(oe\)/);
        await ok(guest, `${blkzone} finish -o ${3 * 8192} -c 1 /dev/vda`);
        assertMatch(await zone(3), /zcond:14\(fu\)/);
        await ok(guest, `${blkzone} reset /dev/vda`);
        assertMatch(await zone(3), /wptr 0x000000.*zcond: 1\(em\)/);
      },

      "a write elsewhere fails": async () => {
        await fails(guest, write(2 * 8192 + 8));
        assertMatch(await zone(2), /wptr 0x000000.*zcond: 1\(em\)/);
      },

      "a secure erase reaches the store": async () => {
        await ok(guest, "blkdiscard -s -o 4096 -l 8192 /dev/vdb");
        assertEquals(
          await ok(
            guest,
            "dd if=/dev/vdb bs=4096 count=4 2>/dev/null | tr '\\0\\356' '.#' | fold -w 4096 | cut -c1",
          ),
          ".\n#\n#\n.",
        );
        assertEquals(
          negotiated(await erasing.record()).acknowledged.includes("SECURE_ERASE"),
          true,
        );
      },
    });
  },
});
