import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { run } from "../../tools/lib/process.ts";
import {
  Backend,
  expectEndedRecord,
  expectLiveRecord,
  ok,
  steps,
  temporary,
} from "./lib/helpers.ts";

Deno.test("back-ends survive QEMU's end, and QEMU survives theirs", async (t) => {
  using directory = temporary();
  const image = `${directory.path}/disk.img`;
  await run(await programPath("mke2fs"), ["-q", "-t", "ext4", image, "32M"]);
  await using disk = await Backend.start(
    "blk",
    [`--blk-file=${image}`, "--num-queues=1"],
    directory,
  );
  await using rng = await Backend.start("rng", [], directory);
  await using input = await Backend.start("input", [], directory);
  const backends = [disk, rng, input];
  const boot = () =>
    Guest.boot({
      devices: [disk.device({ "num-queues": 1 }), rng.device(), input.device()],
    });
  /** Keeps the disk and the random source busy. */
  const busy = "(while :; do dd if=/dev/zero of=/mnt/junk bs=64k count=64 conv=fsync; done) " +
    ">/dev/null 2>&1 & cat /dev/hwrng >/dev/null & until [ -s /mnt/junk ]; do :; done";
  let hash = "";

  await steps(t, {
    "QEMU is killed in the midst of requests, and all rings stop": async () => {
      await using guest = await boot();
      await ok(guest, "mount -t ext4 /dev/vda /mnt");
      await ok(guest, "head -c 1048576 /dev/urandom >/mnt/file; sync");
      hash = await ok(guest, "sha256sum /mnt/file");
      await ok(guest, busy);
      Deno.kill(guest.pid, "SIGKILL");
      for (const backend of backends) {
        const record = await backend.until(({ connections }) =>
          connections.latest[0].disconnectedAt !== null
        );
        expectEndedRecord(record);
        assertEquals(record.connections.latest[0].frontend?.pid, guest.pid);
      }
    },
  });

  await using guest = await boot();
  await steps(t, {
    "the same back-ends serve the next QEMU": async () => {
      // The journal is replayed.
      await ok(guest, "mount -t ext4 /dev/vda /mnt");
      assertEquals(await ok(guest, "sha256sum /mnt/file"), hash);
      await ok(guest, "head -c 64 /dev/hwrng >/dev/null; [ -c /dev/input/event0 ]");
      for (const backend of backends) {
        const record = await backend.record();
        expectLiveRecord(record, guest);
        assertEquals(record.connections.total, 2);
        assert(record.connections.latest[0].disconnectedAt !== null);
      }
    },

    "SIGTERM ends them in the midst of requests": async () => {
      await ok(guest, busy);
      // QEMU aborts when rng or input disconnects, so the disk is first.
      for (const backend of backends) expectEndedRecord(await backend.stop());
    },
  });
});
