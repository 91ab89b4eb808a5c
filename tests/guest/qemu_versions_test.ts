/**
 * The QEMUs of Debian 11, 12 and 13 and of their backports, each with its own C library. One that
 * cannot be downloaded is skipped, and prints why.
 */
import { assert, assertEquals } from "@std/assert";
import { Guest } from "../../tools/guest/guest.ts";
import { run } from "../../tools/lib/process.ts";
import { QEMU_VERSIONS, qemuOfVersion, type QemuVersion } from "../../tools/guest/programs.ts";
import {
  Backend,
  expectEndedRecord,
  expectLiveRecord,
  ok,
  sha256Of,
  temporary,
} from "./lib/helpers.ts";
import { ToolError } from "../../tools/lib/tool_error.ts";

const BYTES = 2 ** 24;

for (const version of QEMU_VERSIONS) {
  const found = await find(version);
  const isThere = "qemu" in found;
  Deno.test({
    name: `a guest on QEMU ${version} keeps what it writes to its disk${
      isThere ? "" : ` (skipped: QEMU ${version} cannot be had: ${found.reason})`
    }`,
    ignore: !isThere,
    fn: () => keepsItsDisk(version, isThere ? found.qemu : ""),
  });
}

async function find(version: QemuVersion): Promise<{ qemu: string } | { reason: string }> {
  try {
    return { qemu: await qemuOfVersion(version) };
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    return { reason: error.message };
  }
}

async function keepsItsDisk(version: QemuVersion, qemu: string): Promise<void> {
  assert((await run(qemu, ["--version"])).includes(` version ${version}.`));
  using directory = temporary();
  const image = `${directory.path}/disk.img`;
  await Deno.writeFile(image, new Uint8Array());
  await Deno.truncate(image, BYTES);
  await using disk = await Backend.start(
    "blk",
    [`--blk-file=${image}`, "--num-queues=2"],
    directory,
  );
  const boot = () => Guest.boot({ qemu, cpus: 2, devices: [disk.device({ "num-queues": 2 })] });
  const hash = async (guest: Guest) =>
    (await ok(guest, "dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum")).slice(0, 64);
  const canReboot = version !== "5.2";
  let written: string;
  {
    await using guest = await boot();
    await ok(
      guest,
      "head -c 4194304 /dev/urandom >/tmp/data; " +
        "dd if=/tmp/data of=/dev/vda bs=64k seek=1 oflag=direct conv=fsync",
    );
    written = await sha256Of(image);
    assertEquals(await hash(guest), written);
    expectLiveRecord(await disk.record(), guest);
    // After a reset under TCG, QEMU 5.2 hangs in its firmware, even without a disk.
    if (canReboot) {
      await guest.reboot();
      assertEquals(await hash(guest), written);
      expectLiveRecord(await disk.record(), guest);
    }
    await guest.powerOff();
  }
  if (!canReboot) {
    await using guest = await boot();
    assertEquals(await hash(guest), written);
    await guest.powerOff();
  }
  expectEndedRecord(await disk.stop());
}
