/** A back-end that restarts with other options, under a guest with features that it no longer offers. */
import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, fails, hasPackedRings, ok, sha256Of, temporary } from "./lib/helpers.ts";

const BYTES = 2 ** 24;

Deno.test("a guest continues when its disks restart with other options, with split and packed rings", async () => {
  using directory = temporary();
  await using stack = new AsyncDisposableStack();
  const disks: { backend: Backend; image: string; packed: boolean }[] = [];
  const flagsFor = (image: string) => [`--blk-file=${image}`, "--num-queues=1"];
  for (const packed of [false, true]) {
    const image = `${directory.path}/${packed}.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, BYTES);
    const disk = { image, packed, backend: await Backend.start("blk", flagsFor(image), directory) };
    stack.defer(() => disk.backend[Symbol.asyncDispose]());
    disks.push(disk);
  }
  await using guest = await Guest.boot({
    devices: disks.map(({ backend, packed }) => ({
      ...backend.device({ "num-queues": 1, packed }),
      reconnectMs: 20,
    })),
  });
  for (const [i, disk] of disks.entries()) {
    const { image, packed } = disk;
    const path = `/dev/vd${"ab"[i]}`;
    const write = `dd if=/dev/urandom of=${path} bs=64k count=32 oflag=direct conv=notrunc`;
    const hash = async () =>
      (await ok(guest, `dd if=${path} bs=1M iflag=direct 2>/dev/null | sha256sum`)).slice(0, 64);
    const restart = async (...more: string[]) => {
      const killed = disk.backend;
      await killed[Symbol.asyncDispose](); // by SIGKILL; it listens until it has ended
      const flags = [...flagsFor(image), ...more];
      disk.backend = await Backend.start("blk", flags, directory, { insteadOf: killed });
    };

    await ok(guest, write);
    await ok(guest, `blkdiscard -o 1048576 -l 65536 ${path}`);
    assertEquals(hasPackedRings(await disk.backend.record()), packed);
    await restart("--discard=ignore");
    // A discard is advice: it may be refused, but it completes, and the disk continues.
    await guest.run(`timeout 20 blkdiscard -o 2097152 -l 65536 ${path}`);
    await ok(guest, `timeout 20 ${write}`);
    assertEquals(await hash(), await sha256Of(image));

    await restart("--read-only");
    const before = await sha256Of(image);
    assertEquals(await hash(), before);
    const said = await fails(guest, `timeout 20 ${write}`);
    assert(said.includes("Input/output error"), said);
    assertEquals(await sha256Of(image), before);

    await restart();
    await ok(guest, `timeout 20 ${write}`);
    assertEquals(await hash(), await sha256Of(image));
    const { queues, errors } = await disk.backend.record();
    assertEquals([queues[0].broken, errors.total], [false, 0]);
  }
});
