/** fio in a guest writes our disks at random and verifies every block. */
import { assertEquals, assertGreater } from "@std/assert";
import { programImage } from "../../tools/guest/program_image.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, hasPackedRings, ok, temporary } from "./lib/helpers.ts";

const SIZE = 2 ** 25;

Deno.test("fio verifies what it wrote over two queues, split and packed", async () => {
  using directory = temporary();
  await using stack = new AsyncDisposableStack();
  const start = async (...flags: string[]) =>
    stack.use(await Backend.start("blk", flags, directory));
  const tools = await start(
    `--blk-file=${await programImage("fio")}`,
    "--read-only",
    "--num-queues=1",
  );
  const disks: { backend: Backend; packed: boolean }[] = [];
  for (const packed of [false, true]) {
    const image = `${directory.path}/${packed}.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, SIZE);
    disks.push({ packed, backend: await start(`--blk-file=${image}`, "--num-queues=2") });
    const memory = await start(`--size=${SIZE}`, "--num-queues=2", "--poll-us=100");
    disks.push({ packed, backend: memory });
  }
  await using guest = await Guest.boot({
    devices: [
      tools.device({ "num-queues": 1 }),
      ...disks.map(({ backend, packed }) => backend.device({ "num-queues": 2, packed })),
    ],
    cpus: 2,
    memory: "512M",
  });
  await ok(guest, "mkdir -p /fio; mount -o ro -t ext4 /dev/vda /fio");
  for (const [i, { backend, packed }] of disks.entries()) {
    const { status, output } = await guest.run(
      `/fio/fio --name=v --filename=/dev/vd${"bcde"[i]} --direct=1 --rw=randwrite ` +
        `--bsrange=512-64k --size=${SIZE / 2} --numjobs=2 --offset_increment=${SIZE / 2} ` +
        "--ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 " +
        "--randseed=7",
      { timeoutMs: 120_000 },
    );
    assertEquals(status, 0, output);
    const record = await backend.record();
    for (const { requests, errors } of record.queues.slice(0, 2)) {
      assertGreater(requests, 0);
      assertEquals(errors, 0);
    }
    assertEquals(hasPackedRings(record), packed);
  }
});
