/** Rings smaller than a request of Linux: indirect tables are longer than the ring. */
import { assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import {
  Backend,
  expectLiveRecord,
  hasPackedRings,
  ok,
  sha256Of,
  temporary,
} from "./lib/helpers.ts";

const BYTES = 2 ** 23;

const QUEUES = [64, 16, 8, 4].flatMap((size) => [false, true].map((packed) => ({ size, packed })));

Deno.test("requests of 1 MiB go through queues of 64, 16, 8 and 4 descriptors, split and packed", async () => {
  using directory = temporary();
  await using stack = new AsyncDisposableStack();
  const disks: { image: string; backend: Backend; size: number; packed: boolean }[] = [];
  for (const { size, packed } of QUEUES) {
    const image = `${directory.path}/${size}${packed}.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, BYTES);
    const backend = stack.use(
      await Backend.start("blk", [`--blk-file=${image}`, "--num-queues=1"], directory),
    );
    disks.push({ image, backend, size, packed });
  }
  await using guest = await Guest.boot({
    devices: disks.map(({ backend, size, packed }) =>
      backend.device({ "num-queues": 1, "queue-size": size, packed })
    ),
  });
  await ok(guest, `head -c ${BYTES} /dev/urandom >/tmp/data`);
  const data = (await ok(guest, "sha256sum /tmp/data")).slice(0, 64);
  for (const [i, { image, backend, size, packed }] of disks.entries()) {
    const disk = `/dev/vd${"abcdefgh"[i]}`;
    await ok(guest, `dd if=/tmp/data of=${disk} bs=1M oflag=direct`);
    assertEquals(await sha256Of(image), data, `${size} descriptors, packed: ${packed}`);
    const read = await ok(guest, `dd if=${disk} bs=1M iflag=direct 2>/dev/null | sha256sum`);
    assertEquals(read.slice(0, 64), data, `${size} descriptors, packed: ${packed}`);
    const record = await backend.record();
    expectLiveRecord(record, guest);
    assertEquals([record.queues[0].size, hasPackedRings(record)], [size, packed]);
  }
});
