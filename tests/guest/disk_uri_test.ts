/** A guest whose disks are elsewhere. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { libraryEnvironment } from "../../tools/guest/programs.ts";
import { rootImage } from "../../tools/guest/root_image.ts";
import { CephCluster } from "../../tools/lib/ceph_cluster.ts";
import { NbdServer } from "../../tools/lib/nbd_server.ts";
import { expectNothingLeft, guest } from "./lib/guest_command.ts";
import { temporary } from "./lib/helpers.ts";

/** Writes a file, and reads it from the disk. */
const COPY = "dd if=/dev/urandom of=/tmp/f bs=1M count=4 2>/dev/null; a=$(md5sum </tmp/f); " +
  "dd if=/tmp/f of=$to bs=1M conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; " +
  'test "$a" = "$(dd if=$to bs=1M count=4 2>/dev/null | md5sum)" && echo same on $to; ';

Deno.test("guest --image=rbd:… boots from Ceph, and writes there and to an NBD server", async () => {
  using directory = temporary();
  using sockets = temporary();
  await using cluster = await CephCluster.start();
  await cluster.run(`rbd import ${await rootImage()} root`);
  const socket = `${sockets.path}/nbd.sock`;
  await using _server = await NbdServer.nbdkit({ at: socket, args: ["8M"] });
  const { LD_LIBRARY_PATH: nbd } = await libraryEnvironment("libnbd0");
  const through = cluster.through
    .map((word) => word.startsWith("LD_LIBRARY_PATH=") ? `${word}:${nbd}` : word);
  const mark = crypto.randomUUID();
  const { code, stdout, stderr } = await guest(
    [
      `--image=rbd:rbd/root:conf=${cluster.conf}`,
      "--device=blk",
      `--device=blk nbd+unix:///?socket=${socket}`,
      ...["--without=net", "--without=input", "--without=rng"],
      `--run=${["/f", "/dev/vdb"].map((to) => `to=${to}; ${COPY}`).join("")}` +
      `echo ${mark} | dd of=/mark conv=fsync 2>/dev/null`,
    ],
    directory,
    { through },
  );
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, "same on /f\nsame on /dev/vdb");
  assertEquals(await cluster.run(`rbd export root - | grep -ac ${mark}`), "1\n");
  await expectNothingLeft(directory);
});
