/** QEMU's changes to running rings, while the guest verifies every block that it writes. */
import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { withTimeout } from "../../tools/lib/process.ts";
import { diskHash, endLoad, expectProgress, LOAD_DISK_BYTES, startLoad } from "./lib/guest_load.ts";
import {
  Backend,
  expectLiveRecord,
  hasPackedRings,
  sha256Of,
  steps,
  temporary,
} from "./lib/helpers.ts";

const TIMEOUT_MS = 60_000;

Deno.test("a guest notices none of QEMU's changes to running rings", async (t) => {
  using directory = temporary();
  const imageOf = (name: string) => `${directory.path}/${name}.img`;
  const start = async (name: string) => {
    await Deno.writeFile(imageOf(name), new Uint8Array());
    await Deno.truncate(imageOf(name), LOAD_DISK_BYTES);
    const flags = [`--blk-file=${imageOf(name)}`, "--num-queues=2", "--threads=2"];
    return await Backend.start("blk", flags, directory);
  };
  await using split = await start("vda");
  await using packed = await start("vdb");
  await using guest = await Guest.boot({
    cpus: 2,
    devices: [
      split.device({ "num-queues": 2, packed: false }),
      packed.device({ "num-queues": 2, packed: true }),
    ],
    qemuArguments: ["-m", "256M,slots=2,maxmem=1G"],
  });
  for (const [name, disk] of [["vda", split], ["vdb", packed]] as const) {
    const rings = disk === packed ? "packed rings" : "split rings";
    await startLoad(guest, name);
    await expectProgress(guest);
    const messages = async () => (await disk.record()).connections.latest[0].messages;

    await steps(t, {
      [`the machine is paused and goes on, and the ${rings} with it`]: async () => {
        const { starts } = (await disk.record()).queues[0];
        for (let i = 1; i <= 3; i++) {
          await guest.qmp("stop");
          assert((await disk.record()).queues.every(({ running }) => !running));
          await guest.qmp("cont");
          await expectProgress(guest);
          assertEquals((await disk.record()).queues[0].starts, starts + i);
        }
      },

      [`memory is plugged in and out under ${rings}`]: async () => {
        for (let i = 0; i < 2; i++) {
          const before = await messages();
          await guest.qmp("object-add", {
            "qom-type": "memory-backend-memfd",
            id: "more",
            size: 2 ** 27,
            share: true,
          });
          await guest.qmp("device_add", { driver: "pc-dimm", id: "dimm", memdev: "more" });
          const with_ = await messages();
          assert(with_ > before, "the back-end was given the memory");
          await expectProgress(guest);
          const deleted = guest.qmpEvent("DEVICE_DELETED");
          await guest.qmp("device_del", { id: "dimm" });
          await withTimeout(deleted, TIMEOUT_MS, () => "The guest has not let go of the memory");
          await guest.qmp("object-del", { id: "more" });
          assert(await messages() > with_, "and it was taken away again");
          await expectProgress(guest);
        }
      },

      [`QEMU is stopped and continued with ${rings}`]: async () => {
        Deno.kill(guest.pid, "SIGSTOP");
        await disk.until(({ queues }) => queues.every(({ inFlight }) => inFlight === 0));
        const requests = async () => (await disk.record()).queues.map(({ requests }) => requests);
        let before, after = await requests();
        // On a busy machine a thread may still have to take what QEMU made available
        for (let i = 0; i < 10 && `${before}` !== `${after}`; i++) {
          before = after;
          await new Promise((resolve) => setTimeout(resolve, 2000));
          after = await requests();
        }
        assertEquals(after, before);
        Deno.kill(guest.pid, "SIGCONT");
        await expectProgress(guest);
      },

      [`the disk has what the guest wrote by ${rings}`]: async () => {
        await endLoad(guest);
        const record = await disk.record();
        expectLiveRecord(record, guest);
        assertEquals(hasPackedRings(record), disk === packed);
        assertEquals(await diskHash(guest, name), await sha256Of(imageOf(name)));
      },
    });
  }
});
