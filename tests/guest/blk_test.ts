import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import type { RecordJson } from "../../src/runtime/record.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { run } from "../../tools/lib/process.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { makeExt4 } from "../../tools/guest/root_image.ts";
import {
  allocatedBytes,
  Backend,
  eventually,
  expectCleanExt4,
  expectEndedRecord,
  expectLiveRecord,
  fails,
  hasPackedRings,
  negotiated,
  ok,
  sha256Of,
  steps,
  temporary,
  type TemporaryDirectory,
} from "./lib/helpers.ts";

const MIB = 2 ** 20;

/** An ext4 image with one file of random bytes, `from_host`. */
async function ext4Image(
  directory: TemporaryDirectory,
  sizeMiB: number,
): Promise<{ path: string; fileHash: string }> {
  const tree = `${directory.path}/tree`;
  const path = `${directory.path}/ext4.img`;
  await Deno.mkdir(tree);
  const bytes = new Uint8Array(100_000); // no multiple of any block
  crypto.getRandomValues(bytes.subarray(0, 65_536));
  await Deno.writeFile(`${tree}/from_host`, bytes);
  await makeExt4(tree, path, sizeMiB);
  return { path, fileHash: await sha256Of(`${tree}/from_host`) };
}

async function emptyImage(directory: TemporaryDirectory, name: string, bytes: number) {
  const path = `${directory.path}/${name}`;
  using file = await Deno.create(path);
  await file.truncate(bytes);
  return path;
}

/** The number of requests of each type. */
function requestsOf({ report }: RecordJson): Record<string, number> {
  return report.requests as Record<string, number>;
}

/** The SHA-256 of a file or disk in the guest, read past its cache. */
async function guestHash(guest: Guest, path: string): Promise<string> {
  return (await ok(guest, `echo 3 >/proc/sys/vm/drop_caches; sha256sum ${path}`)).slice(0, 64);
}

for (
  const { machine, packed, queues } of [
    { machine: "q35", packed: false, queues: 1 },
    { machine: "q35", packed: true, queues: 2 },
    { machine: "microvm", packed: false, queues: 1 },
  ] as const
) {
  const rings = packed ? "packed rings" : "split rings";
  Deno.test(`a guest on ${machine} with ${rings} keeps an ext4 file system on our disk`, async (t) => {
    using directory = temporary();
    const image = await ext4Image(directory, 32);
    await using disk = await Backend.start("blk", [
      `--blk-file=${image.path}`,
      "--serial=TypeScript 1",
      `--num-queues=${queues}`,
    ], directory);
    await using guest = await Guest.boot({
      machine,
      cpus: queues,
      devices: [disk.device({ "num-queues": queues, packed })],
    });
    let written = "";

    await steps(t, {
      "the disk has its size and serial": async () => {
        assertEquals(await ok(guest, "cat /sys/block/vda/size"), `${32 * MIB / 512}`);
        assertEquals(await ok(guest, "cat /sys/block/vda/serial"), "TypeScript 1");
        assertEquals(await ok(guest, "cat /sys/block/vda/ro"), "0");
        assertEquals(await ok(guest, "cat /sys/block/vda/cache_type"), "write back");
      },

      "the guest finds the file that the host put there": async () => {
        await ok(guest, "mount -t ext4 /dev/vda /mnt");
        assertEquals(await guestHash(guest, "/mnt/from_host"), image.fileHash);
      },

      "what the guest has synced the host has": async () => {
        await ok(guest, "head -c 5000003 /dev/urandom >/mnt/from_guest; sync");
        written = await guestHash(guest, "/mnt/from_guest");
        assert(requestsOf(await disk.record()).FLUSH > 0);
        await ok(guest, "umount /mnt");
        assertEquals(await guestHash(guest, "/dev/vda"), await sha256Of(image.path));
        await expectCleanExt4(image.path);
      },

      "after a reboot the guest finds the same bytes": async () => {
        await ok(guest, "mount -t ext4 /dev/vda /mnt");
        await guest.reboot();
        await ok(guest, "mount -t ext4 /dev/vda /mnt");
        assertEquals(await guestHash(guest, "/mnt/from_guest"), written);
        assertEquals(await guestHash(guest, "/mnt/from_host"), image.fileHash);
      },

      "a reset in the midst of writing loses nothing that was synced": async () => {
        await ok(
          guest,
          "while :; do dd if=/dev/zero of=/mnt/junk bs=64k count=64 conv=fsync; done " +
            ">/dev/null 2>&1 & until [ -s /mnt/junk ]; do :; done",
        );
        await guest.reset();
        await ok(guest, "mount -t ext4 /dev/vda /mnt");
        assertEquals(await guestHash(guest, "/mnt/from_guest"), written);
        await ok(guest, "rm -f /mnt/junk; umount /mnt");
        assertEquals(await guestHash(guest, "/dev/vda"), await sha256Of(image.path));
        await expectCleanExt4(image.path);
      },

      "the record says what the driver understood": async () => {
        const record = await disk.record();
        expectLiveRecord(record, guest);
        assertEquals(record.connections.total, 1);
        assertEquals(negotiated(record), {
          acknowledged: [
            ...[
              "SEG_MAX",
              "GEOMETRY",
              "BLK_SIZE",
              "FLUSH",
              "TOPOLOGY",
              "CONFIG_WCE",
              ...queues > 1 ? ["MQ"] : [],
              "DISCARD",
              "WRITE_ZEROES",
            ],
            ...["INDIRECT_DESC", "EVENT_IDX", "VERSION_1"],
          ],
          left: [],
        });
        assertEquals(hasPackedRings(record), packed);
        // Boot, reboot and reset; on q35 the firmware uses the disk first, with one queue.
        const starts = [machine === "q35" ? 6 : 3, 3];
        assertEquals(record.queues.map((queue) => queue.starts), starts.slice(0, queues));
        for (const { requests, kicks, notifications } of record.queues) {
          assert(requests > 0 && kicks > 0 && notifications > 0);
        }
        const sum = (name: "requests" | "bytesRead" | "bytesWritten") =>
          record.queues.reduce((sum, queue) => sum + queue[name], 0);
        assert(sum("requests") > 100);
        assert(sum("bytesRead") > 5_000_003 && sum("bytesWritten") > 5_000_003);
        assertEquals(record.config.reads.source, "inferred");
        const capacity = record.config.fields.find(({ name }) => name === "capacity")!;
        assert(capacity.reads > 0);
        const { IN, OUT, FLUSH } = requestsOf(record);
        assert(IN > 0 && OUT > 0 && FLUSH > 0);
        assertEquals(record.report.failures, []);
      },

      "at the end the record is in its file": async () => {
        await guest.powerOff();
        const record = await disk.stop();
        expectEndedRecord(record);
        assert(record.queues.some(({ requests }) => requests > 100));
      },
    });
  });
}

Deno.test("a guest uses disks of every kind", async (t) => {
  using directory = temporary();
  const image = await emptyImage(directory, "disk.img", 16 * MIB);
  const fixed = await emptyImage(directory, "fixed.img", 4 * MIB);
  const fixedHash = await sha256Of(fixed);
  await using file = await Backend.start(
    "blk",
    [`--blk-file=${image}`, "--num-queues=2", "--threads=2", "--serial=file"],
    directory,
  );
  await using readOnly = await Backend.start(
    "blk",
    [`--blk-file=${fixed}`, "--num-queues=1", "--read-only", "--serial=read-only"],
    directory,
  );
  await using memory = await Backend.start("blk", [
    "--size=8M",
    "--num-queues=1",
    "--serial=memory",
  ], directory);
  await using nothing = await Backend.start(
    "blk",
    ["--null", "--size=1G", "--num-queues=1", "--serial=12345678901234567890"],
    directory,
  );
  await using guest = await Guest.boot({
    cpus: 2,
    devices: [
      file.device({ "num-queues": 2 }),
      ...[readOnly, memory, nothing].map((disk) => disk.device({ "num-queues": 1 })),
    ],
  });

  /** The requests of each queue. */
  async function requests(): Promise<number[]> {
    return (await file.record()).queues.map((queue) => queue.requests);
  }

  await steps(t, {
    "each has its serial": async () => {
      assertEquals(
        await ok(guest, "for d in a b c d; do cat /sys/block/vd$d/serial; echo; done"),
        "file\nread-only\nmemory\n12345678901234567890",
      );
    },

    "each processor has a queue of its own": async () => {
      assertEquals(await ok(guest, "ls -1 /sys/block/vda/mq"), "0\n1");
      for (const queue of [0, 1]) {
        const before = await requests();
        await ok(
          guest,
          `taskset ${1 << queue} dd if=/dev/vda of=/dev/null bs=4k count=200 iflag=direct`,
        );
        const more = (await requests()).map((count, i) => count - before[i]);
        assert(more[queue] >= 200, `queue ${queue}: ${more}`);
      }
    },

    "discarded space is given back to the host": async () => {
      await ok(guest, "dd if=/dev/urandom of=/dev/vda bs=1M count=8 conv=fsync");
      assert(await allocatedBytes(image) >= 8 * MIB);
      await ok(guest, "blkdiscard -o 0 -l 4194304 /dev/vda");
      const bytes = await allocatedBytes(image);
      assert(bytes >= 4 * MIB && bytes < 5 * MIB, `${bytes} bytes`);
      assertEquals(await guestHash(guest, "/dev/vda"), await sha256Of(image));
      await ok(guest, "blkdiscard /dev/vda");
      assertEquals(await allocatedBytes(image), 0);
      assert(requestsOf(await file.record()).DISCARD >= 2);
    },

    "a file system that is trimmed gives its free space back": async () => {
      await run(await programPath("mke2fs"), ["-q", "-t", "ext4", image]);
      await ok(guest, "mount -t ext4 /dev/vda /mnt; fstrim /mnt");
      const empty = await allocatedBytes(image);
      await ok(guest, "head -c 8388608 /dev/urandom >/mnt/file; sync");
      assert(await allocatedBytes(image) >= empty + 8 * MIB);
      await ok(guest, "rm /mnt/file; sync; fstrim /mnt; umount /mnt");
      const after = await allocatedBytes(image);
      assert(after < empty + MIB, `${empty} bytes, then ${after}`);
      await expectCleanExt4(image);
    },

    "it sees that the file has grown, on SIGHUP": async () => {
      await Deno.truncate(image, 24 * MIB);
      file.kill("SIGHUP");
      await eventually(guest, "cat /sys/block/vda/size", `${24 * MIB / 512}`);
      await file.untilSays(`The disk has ${24 * MIB} bytes now`);
      // The new space is usable.
      await ok(guest, "printf the-end | dd of=/dev/vda bs=1 seek=25165817 conv=fsync");
      const bytes = await Deno.readFile(image);
      assertEquals(new TextDecoder().decode(bytes.slice(-7)), "the-end");
    },

    "it sees that the file has shrunk, on POST /resize": async () => {
      await Deno.truncate(image, 12 * MIB);
      assertEquals(await file.post("resize"), { before: 24 * MIB, bytes: 12 * MIB });
      await eventually(guest, "cat /sys/block/vda/size", `${12 * MIB / 512}`);
    },

    "it sees that memory has grown, on POST /resize": async () => {
      await memory.post("resize", { size: "32M" });
      await eventually(guest, "cat /sys/block/vdc/size", `${32 * MIB / 512}`);
    },

    "it cannot write to a read-only disk": async () => {
      assertEquals(await ok(guest, "cat /sys/block/vdb/ro"), "1");
      assertEquals(await guestHash(guest, "/dev/vdb"), fixedHash);
      const said = await fails(guest, "dd if=/dev/urandom of=/dev/vdb bs=4k count=1 conv=fsync");
      assertStringIncludes(said, "Operation not permitted");
      await fails(guest, "blkdiscard /dev/vdb");
      assertEquals(await sha256Of(fixed), fixedHash);
      const record = await readOnly.record();
      assert(negotiated(record).acknowledged.includes("RO"));
    },

    "memory keeps what was written": async () => {
      await ok(guest, "head -c 1048576 /dev/urandom >/tmp/random");
      await ok(guest, "dd if=/tmp/random of=/dev/vdc bs=64k seek=100 conv=fsync");
      await ok(guest, "dd if=/dev/vdc of=/tmp/back bs=64k skip=100 count=16 iflag=direct");
      await ok(guest, "cmp /tmp/random /tmp/back");
    },

    "nothing keeps nothing, and is fine with everything": async () => {
      await ok(guest, "dd if=/dev/urandom of=/dev/vdd bs=64k count=64 seek=1000 conv=fsync");
      await ok(guest, "dd if=/dev/vdd of=/dev/null bs=64k count=64 skip=1000 iflag=direct");
      const { report } = await nothing.record();
      assertEquals((report.store as Record<string, unknown>).kind, "null");
    },

    "its driver is unbound in the midst of reading, and bound again": async () => {
      const hash = await sha256Of(image);
      const { starts } = (await file.record()).queues[1];
      const device = await ok(guest, "basename $(readlink -f /sys/block/vda/device)");
      for (let i = 0; i < 3; i++) {
        await ok(
          guest,
          "(while dd if=/dev/vda of=/dev/null bs=64k iflag=direct; do :; done) >/dev/null 2>&1 &",
        );
        await ok(guest, `echo ${device} >/sys/bus/virtio/drivers/virtio_blk/unbind`);
        await fails(guest, "[ -e /sys/block/vda ]");
        await ok(guest, `echo ${device} >/sys/bus/virtio/drivers/virtio_blk/bind`);
      }
      assertEquals(await guestHash(guest, "/dev/vda"), hash);
      assertEquals((await file.record()).queues[1].starts, starts + 3);
    },

    "the records tell them apart": async () => {
      for (const disk of [file, readOnly, memory, nothing]) {
        expectLiveRecord(await disk.record(), guest);
      }
      assert(negotiated(await file.record()).acknowledged.includes("MQ"));
      assertNotEquals(negotiated(await memory.record()), negotiated(await readOnly.record()));
    },
  });
});
