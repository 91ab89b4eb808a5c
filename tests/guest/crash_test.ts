/**
 * Kills vhostd by SIGKILL and restarts it under a guest whose fio writes at random and verifies every
 * block: the guest sees a pause and no error.
 *
 * VHOSTD_TEST_KILLS sets how often; the default is 3.
 */
import { assert, assertEquals } from "@std/assert";
import { programImage } from "../../tools/guest/program_image.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, expectLiveRecord, hasPackedRings, ok, temporary } from "./lib/helpers.ts";

const KILLS = Number(Deno.env.get("VHOSTD_TEST_KILLS") ?? 3);

const SIZE = 2 ** 24;

/** Time limit for fio to start and to end. */
const TIMEOUT_MS = 300_000;

/** The most requests between a start and the next kill. */
const MAX_REQUESTS = 500;

/** Writes and verifies until /tmp/stop exists; /tmp/done has a line for each round. */
const loadOn = (path: string) =>
  "while [ ! -e /tmp/stop ]; do " +
  `/fio/fio --name=v --filename=${path} --direct=1 --rw=randwrite --bsrange=512-16k ` +
  `--size=${SIZE / 2} --numjobs=2 --offset_increment=${SIZE / 2} --ioengine=libaio ` +
  "--iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fio 2>&1; " +
  'status=$?; echo "fio $status" >>/tmp/rounds; [ $status = 0 ] || cat /tmp/fio >>/tmp/rounds; ' +
  "done; mv /tmp/rounds /tmp/done";

Deno.test("kill -9 under a guest loses nothing, with split and packed rings", async () => {
  using directory = temporary();
  const start = async (name: string, ...flags: string[]) => {
    const image = `${directory.path}/${name}.img`;
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, SIZE);
    return await Backend.start(
      "blk",
      [`--blk-file=${image}`, "--num-queues=2", ...flags],
      directory,
    );
  };
  await using tools = await Backend.start(
    "blk",
    [`--blk-file=${await programImage("fio")}`, "--read-only", "--num-queues=1"],
    directory,
  );
  await using split = await start("split");
  // Past the page cache more requests are in flight.
  await using packed = await start("packed", "--cache=none");
  const device = (disk: Backend) => ({
    ...disk.device({ "num-queues": 2, packed: disk === packed }),
    reconnectMs: 20,
  });
  await using guest = await Guest.boot({
    devices: [tools.device({ "num-queues": 1 }), device(split), device(packed)],
    cpus: 2,
    memory: "512M",
  });
  await ok(guest, "mkdir -p /fio; mount -o ro -t ext4 /dev/vda /fio");
  for (const [path, disk] of [["/dev/vdb", split], ["/dev/vdc", packed]] as const) {
    await ok(guest, `rm -f /tmp/stop /tmp/done; (${loadOn(path)}) >/dev/null 2>&1 &`);
    // A queue without a request has nothing to resume.
    await disk.until(({ queues }) => queues.every(({ requests }) => requests > 0), TIMEOUT_MS);
    let resubmitted = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const enough = Math.trunc(Math.random() * MAX_REQUESTS);
      await disk.until(
        ({ queues }) => queues.some(({ requests }) => requests > enough),
        TIMEOUT_MS,
      );
      await disk.crash();
      // The first queue may answer while the second one's thread starts.
      const record = await disk.until(({ queues }) =>
        queues.some(({ requests }) => requests > 0) && queues.every(({ running }) => running)
      );
      for (const { tracked, resumed, errors } of record.queues) {
        assertEquals({ tracked, resumed, errors }, { tracked: true, resumed: true, errors: 0 });
      }
      resubmitted += record.queues.reduce((sum, queue) => sum + queue.resubmitted, 0);
    }
    const record = await disk.record();
    expectLiveRecord(record, guest);
    assertEquals(hasPackedRings(record), disk === packed);
    await ok(guest, "touch /tmp/stop");
    const { output: rounds } = await guest.run(
      "until [ -e /tmp/done ]; do sleep 0.1; done; cat /tmp/done",
      { timeoutMs: TIMEOUT_MS },
    );
    assert(/^(fio 0\n)+$/.test(rounds), rounds);
    assertEquals(await ok(guest, "dmesg | grep -ci 'i/o error' || true"), "0");
    console.log(`${KILLS} kills, ${resubmitted} requests submitted again`);
  }
});
