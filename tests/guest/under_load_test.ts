/** What QEMU does with rings that run, while the guest verifies every block that it writes. */
import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { withTimeout } from "../../tools/guest/process.ts";
import { Backend, expectLiveRecord, ok, sha256Of, steps, temporary } from "./helpers.ts";

const DISK_BYTES = 2 ** 24;
const LANES = 2;
const TIMEOUT_MS = 30_000;

/**
 * A lane of the load: it writes 64 KiB past the cache, reads them back and
 * compares, in places of its own.
 */
const LANE = `
i=0
until [ -e /tmp/stop ]; do
  i=$((i + 1))
  at=$((i % 128 * ${LANES} + $1))
  head -c 65536 /dev/urandom >/tmp/data$1
  dd if=/tmp/data$1 of=/dev/vda bs=64k seek=$at oflag=direct conv=notrunc 2>/tmp/said$1 &&
  dd if=/dev/vda bs=64k skip=$at count=1 iflag=direct 2>/tmp/said$1 | cmp - /tmp/data$1 ||
  echo "block $at in round $i: $(cat /tmp/said$1)" >>/tmp/bad
  echo $i >/tmp/round$1
done
touch /tmp/ended$1`;

/** Starts the load. */
async function startLoad(guest: Guest): Promise<void> {
  await ok(guest, `cat >/tmp/lane <<'END'\n${LANE}\nEND\ntouch /tmp/bad`);
  for (let lane = 0; lane < LANES; lane++) {
    await ok(guest, `echo 0 >/tmp/round${lane}; sh /tmp/lane ${lane} >/dev/null 2>&1 &`);
  }
}

/** Waits until each lane has gone on, and expects that nothing was wrong. */
async function expectProgress(guest: Guest): Promise<void> {
  for (let lane = 0; lane < LANES; lane++) {
    await ok(
      guest,
      `n=$(cat /tmp/round${lane}); ` +
        `until [ "$(cat /tmp/round${lane})" -gt $((n + 1)) ] 2>/dev/null; do usleep 20000; done`,
    );
  }
  assertEquals(await ok(guest, "cat /tmp/bad"), "");
}

for (const packed of ["off", "on"] as const) {
  Deno.test(`a guest notices nothing of what QEMU does with running rings (packed=${packed})`, async (t) => {
    using directory = temporary();
    const image = `${directory.path}/disk.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, DISK_BYTES);
    await using disk = await Backend.start(
      "blk",
      [`--blk-file=${image}`, "--num-queues=2", "--threads=2"],
      directory,
    );
    await using guest = await Guest.boot({
      cpus: 2,
      devices: [disk.device({ "num-queues": 2, packed })],
      qemuArguments: ["-m", "256M,slots=2,maxmem=1G"],
    });
    await startLoad(guest);
    await expectProgress(guest);
    const messages = async () => (await disk.record()).connections.latest[0].messages;

    await steps(t, {
      "the machine is paused and goes on, and the rings with it": async () => {
        const { starts } = (await disk.record()).queues[0];
        for (let i = 1; i <= 5; i++) {
          await guest.qmp("stop");
          assert((await disk.record()).queues.every(({ running }) => !running));
          await guest.qmp("cont");
          await expectProgress(guest);
          assertEquals((await disk.record()).queues[0].starts, starts + i);
        }
      },

      "memory is plugged in and out": async () => {
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

      "QEMU is stopped and continued": async () => {
        Deno.kill(guest.pid, "SIGSTOP");
        await disk.until(({ queues }) => queues.every(({ inFlight }) => inFlight === 0));
        const requests = async () => (await disk.record()).queues.map(({ requests }) => requests);
        const before = await requests();
        await new Promise((resolve) => setTimeout(resolve, 2000));
        assertEquals(await requests(), before);
        Deno.kill(guest.pid, "SIGCONT");
        await expectProgress(guest);
      },

      "the disk has what the guest wrote": async () => {
        for (let lane = 0; lane < LANES; lane++) {
          await ok(guest, `touch /tmp/stop; until [ -e /tmp/ended${lane} ]; do usleep 20000; done`);
        }
        expectLiveRecord(await disk.record(), guest);
        const hash = await ok(guest, "dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum");
        assertEquals(hash.slice(0, 64), await sha256Of(image));
      },
    });
  });
}
