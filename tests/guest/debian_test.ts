import { assert, assertEquals, assertMatch } from "@std/assert";
import { debianImage } from "./lib/debian_image.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { copyImage } from "../../tools/guest/root_image.ts";
import {
  Backend,
  expectCleanExt4,
  expectEndedRecord,
  expectLiveRecord,
  ok,
  sha256Of,
  steps,
  temporary,
} from "./lib/helpers.ts";

const isRoot = Deno.uid() === 0;

Deno.test({
  name: "a real Debian boots from our disk" +
    (isRoot ? "" : " (ignored: only root can make its image, by debootstrap)"),
  ignore: !isRoot,
  async fn(t) {
    using directory = temporary();
    const root = `${directory.path}/debian.img`;
    const empty = `${directory.path}/empty.img`;
    await copyImage(await debianImage(), root);
    using file = await Deno.create(empty);
    await file.truncate(64 * 2 ** 20);

    await using rootDisk = await Backend.start(
      "blk",
      [`--blk-file=${root}`, "--num-queues=2"],
      directory,
    );
    await using disk = await Backend.start(
      "blk",
      [`--blk-file=${empty}`, "--num-queues=1", "--serial=second"],
      directory,
    );
    await using rng = await Backend.start("rng", [], directory);
    await using keyboard = await Backend.start("input", ["--name=Debian's keyboard"], directory);
    await using guest = await Guest.boot({
      memory: "512M",
      cpus: 2,
      root: "/dev/vda",
      bootTimeoutMs: 180_000,
      devices: [
        rootDisk.device({ "num-queues": 2 }),
        disk.device({ "num-queues": 1 }),
        rng.device(),
        keyboard.device(),
      ],
    });

    await steps(t, {
      "systemd has started everything": async () => {
        const { output } = await guest.run("systemctl is-system-running --wait");
        const failed = await ok(guest, "systemctl --failed --no-legend --plain");
        assertEquals([output.trim(), failed], ["running", ""]);
        assertEquals(await ok(guest, "systemctl is-active multi-user.target"), "active");
        assertMatch(await ok(guest, "cat /etc/os-release"), /^ID=debian$/m);
      },

      "udev knows the devices": async () => {
        assertEquals(await ok(guest, "readlink -f /dev/disk/by-id/virtio-second"), "/dev/vdb");
        const [event] = (await ok(guest, "ls -1 /dev/input/event*")).split("\n");
        assertMatch(await ok(guest, `udevadm info ${event}`), /^E: ID_INPUT_KEYBOARD=1$/m);
        assertEquals(await ok(guest, "cat /sys/class/misc/hw_random/rng_current"), "virtio_rng.0");
      },

      "it makes, fills, checks and trims a file system": async () => {
        await ok(guest, "mkfs.ext4 -q /dev/vdb; mount /dev/vdb /mnt");
        await ok(guest, "cp -a /usr/bin/. /mnt/ 2>/dev/null || true; sync; rm -rf /mnt/*");
        await ok(guest, "head -c 5000003 /dev/urandom >/mnt/file; fstrim /mnt; umount /mnt");
        await ok(guest, "e2fsck -f -n /dev/vdb");
        const hash = await ok(guest, "echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/vdb");
        assertEquals(hash.slice(0, 64), await sha256Of(empty));
        await expectCleanExt4(empty);
      },

      "the records are those of a healthy guest": async () => {
        for (const backend of [rootDisk, disk, rng, keyboard]) {
          expectLiveRecord(await backend.record(), guest);
        }
        const { queues } = await rootDisk.record();
        assert(queues.every(({ requests }) => requests > 0), "a queue was not used");
      },

      "it shuts down and leaves a clean root disk": async () => {
        // The shell may end before it prints the status.
        await guest.run("systemctl poweroff").catch(() => {});
        await guest.waitPowerOff();
        expectEndedRecord(await rootDisk.stop());
        await expectCleanExt4(root);
      },
    });
  },
});
