/** What Linux makes of a disk that fails on purpose. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { run } from "../../tools/lib/process.ts";
import { Backend, eventually, fails, ok, steps, temporary } from "./lib/helpers.ts";

Deno.test("a guest meets the faults of its disk, and none once they are over", async (t) => {
  using directory = temporary();
  const image = `${directory.path}/disk.img`;
  await Deno.writeFile(image, new Uint8Array());
  await Deno.truncate(image, 2 ** 25);
  await run(await programPath("mke2fs"), ["-q", "-t", "ext4", image]);
  const flags = [`--blk-file=${image}`, "--num-queues=1", "--faults=error=read:16M-16388K"];
  await using disk = await Backend.start("blk", flags, directory);
  await using guest = await Guest.boot({ devices: [disk.device({ "num-queues": 1 })] });
  const read = "dd if=/dev/vda of=/dev/null bs=4k iflag=direct skip=4090 count=10 2>&1";

  await steps(t, {
    "a read of the range is an I/O error, others are none": async () => {
      assertStringIncludes(await fails(guest, read), "Input/output error");
      await ok(guest, read.replace("count=10", "count=6"));
    },

    "ext4 aborts its journal and becomes read-only when writes fail": async () => {
      await disk.post("faults", {});
      await ok(guest, "mount -t ext4 /dev/vda /mnt; echo before >/mnt/file; sync");
      await disk.post("faults", { faults: "error=write" });
      await fails(guest, "echo after >/mnt/other && sync && echo again >/mnt/other && sync");
      await fails(guest, "echo more >/mnt/more; sync; echo more >/mnt/more");
      assertStringIncludes(await fails(guest, "touch /mnt/more"), "Read-only file system");
    },

    "all works when the faults are over": async () => {
      await disk.post("faults", {});
      await ok(guest, "umount /mnt; mount -t ext4 /dev/vda /mnt; touch /mnt/more; sync");
      assertEquals(await ok(guest, "cat /mnt/file"), "before");
      await ok(guest, `${read}; umount /mnt`);
    },

    "a stuck request waits until it is released": async () => {
      await disk.post("faults", { faults: "stuck=read:16M-16388K" });
      await ok(guest, `(${read}; echo status $? >/tmp/done) >/dev/null 2>&1 &`);
      await disk.until(({ report }) => (report as { faults: { held: number } }).faults.held === 1);
      assertEquals(await ok(guest, "ls /tmp | grep -c done || true"), "0");
      await disk.post("faults", {});
      await eventually(guest, "cat /tmp/done", "status 0");
    },
  });
});
