/** Opening images: which files are refused, and that the locked file is the served one. */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { openFileStore } from "../../backends/blk/file_store.ts";
import { lockImage } from "../../backends/blk/image_lock.ts";
import blk from "../../backends/blk/mod.ts";
import { serve } from "../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { createMemfd, isLockedElsewhere, lockShared, openFile } from "../../src/linux/mod.ts";
import { libc } from "../../src/linux/libc.ts";
import { canMount, loopDevice, mounted, run, smallTmpfs } from "./lib/block_devices.ts";
import { CliProcess } from "./lib/cli_process.ts";
import { temporaryDirectory } from "./lib/directory.ts";

const MIB = 2 ** 20;

function image(path: string, bytes = 4 * MIB): string {
  Deno.writeFileSync(path, new Uint8Array());
  Deno.truncateSync(path, bytes);
  return path;
}

/** Serves a disk and closes it at once. */
async function open(options: Record<string, unknown>): Promise<void> {
  using directory = temporaryDirectory();
  await using _server = await serve(blk, {
    socketPath: `${directory.path}/blk.sock`,
    options: { numQueues: 1, io: "sync", ...options },
  });
}

async function expectRefused(options: Record<string, unknown>, why: string): Promise<void> {
  const error = await assertRejects(() => open(options));
  assertStringIncludes(error.message, why);
  assertEquals(error.message.includes("\n"), false);
}

const READ_ONLY = "add --read-only";

Deno.test("blk refuses to write to a read-only block device", async () => {
  if (!canMount()) return;
  using directory = temporaryDirectory();
  using device = loopDevice(image(`${directory.path}/a.img`), "--read-only");
  await expectRefused(
    { blkFile: device.path },
    `${device.path}: it can only be read; ${READ_ONLY}`,
  );
  await open({ blkFile: device.path, readOnly: true });
});

Deno.test("blk refuses to write to a file on a read-only file system", async () => {
  if (!canMount()) return;
  using directory = smallTmpfs("1m");
  const blkFile = image(`${directory.path}/a.img`);
  run("mount", "-o", "remount,ro", directory.path);
  await expectRefused({ blkFile }, `it can only be read; ${READ_ONLY}`);
  await open({ blkFile, readOnly: true });
});

Deno.test("blk refuses to write to a sealed file", async () => {
  const F_ADD_SEALS = 1033, F_SEAL_WRITE = 8;
  using memfd = createMemfd("sealed", MIB);
  assertEquals(libc.fcntl(memfd.number, F_ADD_SEALS, F_SEAL_WRITE), 0);
  const blkFile = `/proc/self/fd/${memfd.number}`;
  await expectRefused({ blkFile }, READ_ONLY);
  await open({ blkFile, readOnly: true });
});

Deno.test("blk refuses to write to an immutable file, and names the remedy", async () => {
  using directory = temporaryDirectory();
  const blkFile = image(`${directory.path}/a.img`);
  try {
    run("chattr", "+i", blkFile);
  } catch {
    console.log("skipped: it needs root, and a file system that knows chattr");
    return;
  }
  try {
    await expectRefused({ blkFile }, "chattr -i");
    await open({ blkFile, readOnly: true });
  } finally {
    run("chattr", "-i", blkFile);
  }
});

Deno.test("blk refuses an image that is not raw, unless it is said to be", async () => {
  using directory = temporaryDirectory();
  const blkFile = image(`${directory.path}/a.qcow2`);
  Deno.writeFileSync(blkFile, new TextEncoder().encode("QED\0"), { append: false });
  Deno.truncateSync(blkFile, MIB);
  await expectRefused({ blkFile }, `${blkFile} looks like an image in the format qed`);
  await expectRefused(
    { blkFile, readOnly: true },
    "serve it by qemu-nbd --persistent --format=qed",
  );
  await open({ blkFile, format: "raw" });
});

for (const [bytes, isServed] of [[2 ** 53 - 512, true], [2 ** 53, false], [7 * 2 ** 60, false]]) {
  Deno.test(`blk ${isServed ? "serves" : "refuses"} an image of ${bytes} bytes`, async () => {
    // Only some file systems, such as tmpfs, support files of this size.
    const blkFile = Deno.makeTempFileSync({ dir: "/dev/shm", prefix: "vhostd-test-" });
    try {
      {
        using file = openFile(blkFile, { write: true });
        assertEquals(libc.ftruncate(file.number, BigInt(bytes)), 0);
      }
      if (isServed) await open({ blkFile });
      else await expectRefused({ blkFile }, "8 PiB");
    } finally {
      Deno.removeSync(blkFile);
    }
  });
}

const IN_USE = "it is mounted, or another program has it for itself";

Deno.test("blk refuses a mounted block device", async () => {
  if (!canMount()) return;
  using directory = temporaryDirectory();
  const path = image(`${directory.path}/a.img`, 16 * MIB);
  run("mkfs.ext4", "-q", path);
  using device = loopDevice(path);
  {
    using _mount = mounted(device.path);
    await expectRefused({ blkFile: device.path }, IN_USE);
    await expectRefused({ blkFile: device.path, readOnly: true }, IN_USE);
    await open({ blkFile: device.path, lock: "off" });
  }
  await open({ blkFile: device.path });
});

Deno.test("blk refuses a block device that is served through another node; readers share it", async () => {
  if (!canMount()) return;
  using directory = temporaryDirectory();
  using device = loopDevice(image(`${directory.path}/a.img`));
  const node = `${directory.path}/node`;
  const [major, minor] = run("stat", "--format=%Hr %Lr", device.path).split(" ");
  run("mknod", node, "b", major, minor);
  for (const readOnly of [false, true]) {
    await using _server = await serve(blk, {
      socketPath: `${directory.path}/first.sock`,
      options: { blkFile: device.path, numQueues: 1, readOnly },
    });
    if (readOnly) await open({ blkFile: node, readOnly });
    else await expectRefused({ blkFile: node }, IN_USE);
    // A closed server has released it.
  }
  await open({ blkFile: node });
});

Deno.test("blk refuses a loop device over a served file, and a file under a served loop device", async () => {
  if (!canMount()) return;
  using directory = temporaryDirectory();
  const path = image(`${directory.path}/a.img`);
  using device = loopDevice(path);
  for (const [served, other] of [[path, device.path], [device.path, path]]) {
    await using _server = await serve(blk, {
      socketPath: `${directory.path}/first.sock`,
      options: { blkFile: served, numQueues: 1, io: "sync" },
    });
    await expectRefused({ blkFile: other }, "another program writes to it");
  }
  await open({ blkFile: device.path });
});

Deno.test("blk with --cache=none serves the file that it locked, whatever the path names by then", async () => {
  using directory = temporaryDirectory();
  const path = image(`${directory.path}/a.img`, MIB);
  const moved = `${directory.path}/moved.img`;
  const other = image(`${directory.path}/other.img`, MIB);
  const FORBIDS_WRITE = 201, DOES_WRITE = 101; // QEMU, block/file-posix.c
  using obstacle = openFile(path);
  lockShared(obstacle.number, FORBIDS_WRITE, 1);
  const socketPath = `${directory.path}/blk.sock`;
  const start = () =>
    new CliProcess(
      ["blk", `--blk-file=${path}`, "--cache=none", "--io=sync", `--socket-path=${socketPath}`],
    );
  /**
   * Whether it was seen trying to lock the open file: it retries for two seconds, and holds
   * a lock for an instant each time.
   */
  const waits = async ({ pid }: CliProcess) => {
    const isRunning = () => Deno.stat(`/proc/${pid}`).then(() => true, () => false);
    while (await isRunning()) {
      if (isLockedElsewhere(obstacle.number, DOES_WRITE, 1)) return true;
    }
    return false;
  };
  let started = start();
  for (let attempt = 1; !await waits(started); attempt++) {
    await started[Symbol.asyncDispose]();
    assert(attempt < 20, "vhostd was never seen to try for the lock");
    started = start();
  }
  await using vhostd = started;
  Deno.renameSync(path, moved);
  Deno.renameSync(other, path);
  obstacle.close();
  await vhostd.until(socketPath);
  await using driver = await VirtioDriver.start(socketPath, { timeoutMs: 30_000 });
  const disk = new BlkDriver(driver);
  const data = new Uint8Array(65_536).fill(7);
  assertEquals((await disk.write(0, data)).status, blkStatus.OK);
  assertEquals((await disk.read(0, data.length)).data, data);
  assertEquals(Deno.readFileSync(moved).subarray(0, data.length), data);
  assert(Deno.readFileSync(path).every((byte) => byte === 0));
});

Deno.test("blk leaves no descriptor when it cannot get the lock", () => {
  using directory = temporaryDirectory();
  const path = image(`${directory.path}/a.img`);
  const options = { readOnly: false, io: "sync", direct: true, lock: true, log() {} } as const;
  using held = openFile(path);
  using _lock = lockImage(path, held.number, false);
  const count = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const before = count();
  assertThrows(() => openFileStore(path, options), Error, "another program writes to it");
  assertEquals(count(), before);
});
