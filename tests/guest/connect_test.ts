import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { diskHash, endLoad, expectProgress, LOAD_DISK_BYTES, startLoad } from "./lib/guest_load.ts";
import {
  Backend,
  expectEndedRecord,
  expectLiveRecord,
  ok,
  sha256Of,
  steps,
  temporary,
} from "./lib/helpers.ts";

Deno.test("back-ends connect to QEMU, and reconnect to the next one", async (t) => {
  using directory = temporary();
  const image = `${directory.path}/disk.img`;
  await Deno.writeFile(image, new Uint8Array());
  await Deno.truncate(image, LOAD_DISK_BYTES);
  const connects = { connects: true };
  const startDisk = (insteadOf?: Backend) =>
    Backend.start("blk", [`--blk-file=${image}`, "--num-queues=2", "--threads=2"], directory, {
      ...connects,
      insteadOf,
    });
  let disk = await startDisk();
  await using stack = new AsyncDisposableStack();
  stack.defer(() => disk[Symbol.asyncDispose]());
  await using rng = await Backend.start("rng", [], directory, connects);
  await using input = await Backend.start("input", [], directory, connects);
  const backends = () => [disk, rng, input];
  const boot = () =>
    Guest.boot({
      cpus: 2,
      devices: [disk.device({ "num-queues": 2 }), rng.device(), input.device()],
    });
  let written = "";

  await steps(t, {
    "a guest uses devices that came to QEMU": async () => {
      await using guest = await boot();
      await ok(guest, "head -c 65536 /dev/hwrng >/tmp/random");
      await ok(guest, "dd if=/tmp/random of=/dev/vda bs=64k conv=fsync");
      await ok(guest, "[ -c /dev/input/event0 ]");
      written = await diskHash(guest);
      for (const backend of backends()) {
        expectLiveRecord(await backend.record(), guest);
        await backend.untilSays("Connected to the front-end");
      }
      await ok(guest, "(while :; do cat /dev/vda; done) >/dev/null 2>&1 &");
      Deno.kill(guest.pid, "SIGKILL");
      for (const backend of backends()) await backend.untilSays("Waits for a front-end");
    },

    "the next QEMU has them too, and a disk that is killed under load comes back": async () => {
      await using guest = await boot();
      assertEquals(await diskHash(guest), written);
      await ok(guest, "head -c 64 /dev/hwrng >/dev/null; [ -c /dev/input/event0 ]");
      for (const backend of backends()) {
        const record = await backend.record();
        expectLiveRecord(record, guest);
        // One more if QEMU's socket accepted a connection while QEMU died.
        const { total, latest } = record.connections;
        assert(total === 2 || total === 3, `Expected one connection per QEMU, got ${total}`);
        for (const { disconnectedAt } of latest.slice(0, -1)) assert(disconnectedAt !== null);
      }
      await startLoad(guest);
      for (let i = 0; i < 3; i++) {
        await expectProgress(guest);
        await disk[Symbol.asyncDispose](); // by SIGKILL
        disk = await startDisk(disk);
        await expectProgress(guest);
      }
      await endLoad(guest);
      expectLiveRecord(await disk.record(), guest);
      assertEquals(await diskHash(guest), await sha256Of(image));
      await guest.powerOff();
    },

    "they end while they wait": async () => {
      for (const backend of backends()) expectEndedRecord(await backend.stop());
    },
  });
});
