import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { MACHINES } from "../../tools/guest/qemu.ts";
import { runCli } from "../frontend/lib/cli_process.ts";
import {
  Backend,
  expectEndedRecord,
  expectLiveRecord,
  hasPackedRings,
  negotiated,
  ok,
  steps,
  temporary,
} from "./lib/helpers.ts";

for (const machine of MACHINES) {
  Deno.test(`a guest on ${machine} gets its randomness from our rng`, async (t) => {
    using directory = temporary();
    const wire = `${directory.path}/wire.pcapng`;
    const earlier = `${directory.path}/earlier.json`;
    await using rng = await Backend.start("rng", [`--wire=${wire}`], directory);
    // QEMU 10 always offers packed rings for this device; others may not.
    await using guest = await Guest.boot({
      machine,
      devices: [rng.device({ packed: true })],
    });

    /** Bytes from the guest's random source. */
    async function random(bytes: number): Promise<Uint8Array> {
      const command = `dd if=/dev/hwrng bs=${bytes} count=1 iflag=fullblock 2>/dev/null`;
      const { status, bytes: got } = await guest.run(command);
      assertEquals(status, 0);
      assertEquals(got.length, bytes);
      return got;
    }

    await steps(t, {
      "Linux has chosen it": async () => {
        assertEquals(await ok(guest, "cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0");
      },

      "/dev/hwrng gives different bytes each time": async () => {
        const blocks = new Set<string>();
        for (const bytes of [1, 16, 64, 1000, 16_384]) {
          const before = (await rng.record()).queues[0].bytesWritten;
          const [first, second] = [await random(bytes), await random(bytes)];
          if (bytes > 1) assertNotEquals(first, second);
          for (let i = 0; i + 16 <= bytes; i += 16) {
            blocks.add(first.subarray(i, i + 16).toHex());
            blocks.add(second.subarray(i, i + 16).toHex());
          }
          const { bytesWritten } = (await rng.record()).queues[0];
          // Linux requests a little more than it needs, and keeps the rest.
          if (bytes > 64) assert(bytesWritten >= before + 2 * bytes - 128);
        }
        assertEquals(blocks.size, 2 * (1 + 4 + 62 + 1024));
      },

      "its driver is unbound and bound again": async () => {
        const device = await ok(guest, "basename $(readlink -f /sys/bus/virtio/devices/virtio*)");
        for (let i = 0; i < 3; i++) {
          await ok(guest, `echo ${device} >/sys/bus/virtio/drivers/virtio_rng/unbind`);
          const current = await ok(guest, "cat /sys/class/misc/hw_random/rng_current");
          assertEquals(current.includes("virtio"), false);
          await ok(guest, `echo ${device} >/sys/bus/virtio/drivers/virtio_rng/bind`);
          assertStringIncludes(
            await ok(guest, "cat /sys/class/misc/hw_random/rng_current"),
            "virtio_rng.",
          );
          assertNotEquals(await random(64), await random(64));
        }
      },

      "the record says what the driver understood": async () => {
        const record = await rng.record();
        expectLiveRecord(record, guest);
        assertEquals(negotiated(record), {
          acknowledged: ["INDIRECT_DESC", "EVENT_IDX", "VERSION_1"],
          left: [],
        });
        assert(hasPackedRings(record));
        assertEquals(record.config.reads.source, "not observable");
        const [queue] = record.queues;
        assertEquals(queue.starts, 4);
        assert(queue.requests > 0 && queue.kicks > 0 && queue.notifications > 0);
        assert(queue.bytesWritten > 2 * 16_384);
        assertEquals(queue.bytesRead, 0);
      },

      "another record of the same driver is equal": async () => {
        await Deno.writeTextFile(earlier, JSON.stringify(await rng.record()));
        await random(64);
        const { status, stdout } = await runCli(["compare", earlier, rng.controlPath]);
        assertEquals(status, 0, stdout);
      },

      "at the end the record is in its file": async () => {
        await guest.powerOff();
        const record = await rng.stop();
        expectEndedRecord(record);
        assert(record.queues[0].bytesWritten > 2 * 16_384);
      },

      "what QEMU said replays against another back-end": async () => {
        await using other = await Backend.start("rng", [], directory);
        const replay = await runCli(["replay", wire, `--socket-path=${other.socketPath}`]);
        assertStringIncludes(replay.stdout, "all answers are as recorded");
        assertEquals(replay.status, 0);
        const { errors, queues } = await other.record();
        assertEquals([errors.total, queues[0].faults, queues[0].starts], [0, [], 4]);
        // It got no requests
        const { status, stdout } = await runCli(["compare", earlier, other.controlPath]);
        assertEquals(status, 1);
        assertMatch(stdout, /^queue 0 \(requestq\) requests +yes +none$/m);
      },
    });
  });
}
