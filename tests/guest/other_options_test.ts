/** A back-end that restarts with other options, under a guest with features that it no longer offers. */
import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, fails, ok, sha256Of, temporary } from "./lib/helpers.ts";

const BYTES = 2 ** 24;

for (const packed of [false, true]) {
  Deno.test(`a guest continues when its disk restarts with other options, with ${packed ? "packed" : "split"} rings`, async () => {
    using directory = temporary();
    const image = `${directory.path}/disk.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, BYTES);
    const flags = [`--blk-file=${image}`, "--num-queues=1"];
    let disk = await Backend.start("blk", flags, directory);
    try {
      await using guest = await Guest.boot({
        devices: [{ ...disk.device({ "num-queues": 1, packed }), reconnectMs: 20 }],
      });
      const write = "dd if=/dev/urandom of=/dev/vda bs=64k count=32 oflag=direct conv=notrunc";
      const hash = async () =>
        (await ok(guest, "dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum")).slice(0, 64);
      const restart = async (...more: string[]) => {
        disk.kill("SIGKILL");
        const killed = disk;
        disk = await Backend.start("blk", [...flags, ...more], directory, { insteadOf: killed });
        await killed[Symbol.asyncDispose]();
      };

      await ok(guest, write);
      await ok(guest, "blkdiscard -o 1048576 -l 65536 /dev/vda");
      await restart("--discard=ignore");
      // A discard is advice: it may be refused, but it completes, and the disk continues.
      await guest.run("timeout 20 blkdiscard -o 2097152 -l 65536 /dev/vda");
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
      const { queues, errors } = await disk.record();
      assertEquals([queues[0].broken, errors.total], [false, 0]);
    } finally {
      await disk[Symbol.asyncDispose]();
    }
  });
}
