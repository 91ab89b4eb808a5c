/** QEMU does not resend the cache mode after a reboot or a reconnection, but the guest relies on it. */
import { assertEquals } from "@std/assert";
import type { RecordJson } from "../../src/runtime/record.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, expectLiveRecord, ok, steps, temporary } from "./lib/helpers.ts";

const SIZE = 2 ** 24;

function reported({ report }: RecordJson): { mode: string; statuses: Record<string, number> } {
  return report as { mode: string; statuses: Record<string, number> };
}

Deno.test("a guest's write-through and its features survive reboots and restarts of back-ends", async (t) => {
  using directory = temporary();
  const image = `${directory.path}/disk.img`;
  await Deno.writeFile(image, new Uint8Array());
  await Deno.truncate(image, SIZE);
  const flags = [`--blk-file=${image}`, "--num-queues=1"];
  await using disk = await Backend.start("blk", flags, directory);
  await using guest = await Guest.boot({
    devices: [{ ...disk.device({ "num-queues": 1 }), reconnectMs: 20 }],
  });
  const cacheType = () => ok(guest, "cat /sys/block/vda/cache_type");
  const write = (text: string) =>
    ok(guest, `yes ${text} | head -c 65536 | dd of=/dev/vda bs=64k count=1 conv=fsync 2>&1`);
  const mode = async (backend: Backend) => reported(await backend.record()).mode;

  await steps(t, {
    "the guest is told write-back, and chooses write-through": async () => {
      assertEquals([await cacheType(), await mode(disk)], ["write back", "write-back"]);
      await ok(guest, "echo 'write through' >/sys/block/vda/cache_type");
      assertEquals([await cacheType(), await mode(disk)], ["write through", "write-through"]);
    },

    "so it is after a reboot": async () => {
      await guest.reboot();
      assertEquals([await cacheType(), await mode(disk)], ["write through", "write-through"]);
      await write("reboot");
    },

    "and under another process": async () => {
      await disk.crash();
      await write("crash");
      assertEquals(await mode(disk), "write-through");
      await guest.reboot();
      assertEquals([await cacheType(), await mode(disk)], ["write through", "write-through"]);
    },

    "until the guest says otherwise": async () => {
      await ok(guest, "echo 'write back' >/sys/block/vda/cache_type");
      await guest.reboot();
      assertEquals([await cacheType(), await mode(disk)], ["write back", "write-back"]);
      expectLiveRecord(await disk.record(), guest);
    },

    "a process that offers less is used as the one before": async () => {
      await disk.stop();
      await using less = await Backend.start("blk", [...flags, "--discard=ignore"], directory, {
        insteadOf: disk,
      });
      await write("less");
      await ok(guest, "blkdiscard -l 65536 /dev/vda || true");
      assertEquals(await ok(guest, "echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/vda"), "less");
      assertEquals(reported(await less.record()).statuses.IOERR, 0);
    },
  });
});
