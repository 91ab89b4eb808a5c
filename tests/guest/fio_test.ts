/** fio in a guest writes our disks at random and verifies every block. */
import { assertEquals, assertGreater } from "@std/assert";
import { programImage } from "../../tools/guest/program_image.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, hasPackedRings, temporary } from "./lib/helpers.ts";

const SIZE = 2 ** 25;

for (const packed of ["off", "on"] as const) {
  Deno.test(`fio verifies what it wrote over two queues, with packed=${packed}`, async () => {
    using directory = temporary();
    const image = `${directory.path}/disk.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, SIZE);
    await using tools = await Backend.start(
      "blk",
      [`--blk-file=${await programImage("fio")}`, "--read-only", "--num-queues=1"],
      directory,
    );
    const queues = { "num-queues": 2, packed };
    await using file = await Backend.start(
      "blk",
      [`--blk-file=${image}`, "--num-queues=2"],
      directory,
    );
    await using memory = await Backend.start(
      "blk",
      [`--size=${SIZE}`, "--num-queues=2", "--poll-us=100"],
      directory,
    );
    await using guest = await Guest.boot({
      devices: [tools.device({ "num-queues": 1 }), file.device(queues), memory.device(queues)],
      cpus: 2,
      memory: "512M",
    });
    const mounted = await guest.run("mkdir -p /fio; mount -o ro -t ext4 /dev/vda /fio");
    assertEquals(mounted.status, 0, mounted.output);
    for (const disk of ["vdb", "vdc"]) {
      const { status, output } = await guest.run(
        `/fio/fio --name=v --filename=/dev/${disk} --direct=1 --rw=randwrite --bsrange=512-64k ` +
          `--size=${SIZE / 2} --numjobs=2 --offset_increment=${SIZE / 2} --ioengine=libaio ` +
          "--iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7",
        { timeoutMs: 120_000 },
      );
      assertEquals(status, 0, output);
    }
    for (const backend of [file, memory]) {
      const record = await backend.record();
      for (const { requests, errors } of record.queues.slice(0, 2)) {
        assertGreater(requests, 0);
        assertEquals(errors, 0);
      }
      assertEquals(hasPackedRings(record), packed === "on");
    }
  });
}
