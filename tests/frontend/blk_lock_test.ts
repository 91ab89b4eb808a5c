import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { connectUnix } from "../../src/frontend/control_channel.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { isLockedElsewhere, openFile, watchesEnded } from "../../src/linux/mod.ts";
import { spawn } from "../../tools/lib/process.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";

const IMAGE_BYTES = 1 << 20;

/** Runs a test with an image and a function that serves it, and removes all at the end. */
async function withImage(
  test: (
    image: string,
    open: (options?: Record<string, unknown>) => Promise<DeviceServer>,
    directory: string,
  ) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-lock-" });
  const image = `${directory}/disk.img`;
  Deno.writeFileSync(image, new Uint8Array(IMAGE_BYTES));
  let sockets = 0;
  const open = (options = {}) =>
    serve(blk, {
      socketPath: `${directory}/${sockets++}.sock`,
      // By system calls: on tmpfs, auto takes a lease, which cannot be broken while a second server
      // of this process waits.
      options: { blkFile: image, numQueues: 1, io: "sync", ...options },
    });
  try {
    await test(image, open, directory);
    await watchesEnded();
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Starts qemu-storage-daemon on an image. */
async function startPeer(image: string, directory: string, readOnly: boolean) {
  const socket = `${directory}/peer.sock`;
  const process = spawn(await programPath("qemu-storage-daemon"), [
    ...["--blockdev", `driver=file,node-name=disk,filename=${image},read-only=${onOff(readOnly)}`],
    "--export",
    `vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=${socket},` +
    `writable=${onOff(!readOnly)}`,
  ], { stdin: "null", stdout: "null", stderr: "piped" });
  const stderr = new Response(process.stderr).text();
  return {
    /** Waits until it listens. */
    async started(): Promise<void> {
      await (await connectUnix(socket, 60_000)).close();
    },
    /** Its stderr, once it has ended. */
    async end(signal?: Deno.Signal): Promise<string> {
      if (signal !== undefined) process.kill(signal);
      await process.status;
      return await stderr;
    },
  };
}

const onOff = (on: boolean) => on ? "on" : "off";

Deno.test("one image has one writer, and readers rely on it", () =>
  withImage(async (_image, open) => {
    {
      await using _writer = await open();
      for (const readOnly of [false, true]) {
        const error = await assertRejects(() => open({ readOnly }), Error);
        assertStringIncludes(error.message, "disk.img: another program writes to it; stop that");
      }
      await using _unlocked = await open({ lock: "off" });
    }
    await using _reader = await open({ readOnly: true });
    await using _another = await open({ readOnly: true });
    const error = await assertRejects(() => open(), Error);
    assertStringIncludes(error.message, "does not allow others to write to it");
  }));

Deno.test("QEMU and vhostd lock each other out of an image", () =>
  withImage(async (image, open, directory) => {
    {
      await using _server = await open();
      const peer = await startPeer(image, directory, false);
      assertStringIncludes(await peer.end(), 'Failed to get "write" lock');
    }
    const peer = await startPeer(image, directory, false);
    await peer.started();
    const error = await assertRejects(() => open(), Error);
    assertStringIncludes(error.message, "another program writes to it");
    assertEquals(await peer.end("SIGTERM"), "");
    await using _server = await open();
  }));

Deno.test("QEMU and vhostd read one image together", () =>
  withImage(async (image, open, directory) => {
    await using _server = await open({ readOnly: true });
    const peer = await startPeer(image, directory, true);
    await peer.started();
    await using _another = await open({ readOnly: true });
    assertEquals(await peer.end("SIGTERM"), "");
  }));

Deno.test("the lock of a vhostd that is killed under load delays the next one only for a moment", () =>
  withImage(async (image, open, directory) => {
    const socketPath = `${directory}/killed.sock`;
    await using cli = new CliProcess([
      ...["blk", `--socket-path=${socketPath}`, `--blk-file=${image}`],
      ...["--num-queues=1", "--io=uring"],
    ]);
    await cli.until("listens");
    {
      await using driver = await VirtioDriver.start(socketPath);
      const disk = new BlkDriver(driver);
      assertEquals((await disk.write(0, new Uint8Array(512))).status, blkStatus.OK);
      const lost = Array.from(
        { length: 32 },
        (_, i) => disk.write(i * 32, new Uint8Array(16384)).catch(() => {}),
      );
      cli.kill("SIGKILL");
      await driver.disconnect();
      await using _server = await open();
      await driver.close();
      await Promise.all(lost);
    }
  }));

Deno.test("a second vhostd is told that an image in memory is in use", () =>
  withImage(async (_image, _open, directory) => {
    const image = `/dev/shm/${directory.split("/").at(-1)}.img`;
    Deno.writeFileSync(image, new Uint8Array(IMAGE_BYTES));
    try {
      const args = ["blk", `--blk-file=${image}`];
      await using first = new CliProcess([...args, `--socket-path=${directory}/1.sock`]);
      await first.until("listens");
      const { status, stderr } = await runCli([...args, `--socket-path=${directory}/2.sock`]);
      assertEquals(status, 1);
      assertStringIncludes(stderr, "another program writes to it");
    } finally {
      Deno.removeSync(image);
    }
  }));

Deno.test("a server that is closed leaves no lock", () =>
  withImage(async (image, open) => {
    using file = openFile(image);
    const isLocked = () => isLockedElsewhere(file.number, 0, IMAGE_BYTES);
    for (const io of ["sync", "uring"]) {
      {
        await using _server = await open({ io });
        assertEquals(isLocked(), true);
      }
      assertEquals(isLocked(), false, io);
    }
  }));
