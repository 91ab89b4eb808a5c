/** The record of what Linux's drivers did, completed by QEMU's trace. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import type { ConfigAccess } from "../../src/runtime/driver_trace.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { GuestWatch } from "../../tools/guest/watch.ts";
import { run } from "../../tools/lib/process.ts";
import { CliProcess } from "../frontend/lib/cli_process.ts";
import { Backend, ok, steps, temporary } from "./lib/helpers.ts";

/** The accesses to config space in a raw trace of QEMU, by device type: `read 0x14/4` and how often. */
function accessesIn(raw: string, type: string): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const line of raw.split("\n")) {
    if (!line.endsWith(` name 'virtio-pci-device-virtio-${type}'`)) continue;
    const words = line.split(":").at(-1)!.split(" ");
    const after = (word: string) => words[words.indexOf(word) + 1];
    // Each region is a page
    const offset = Number(after("addr")) % 4096;
    const key = `${words[0].split("_").at(-1)} ${offset}/${after("size")}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

function accessesOf({ traced }: RecordJson): Record<string, number> {
  return Object.fromEntries(
    traced!.config.map(({ access, offset, bytes, count }: ConfigAccess) => [
      ...[`${access} ${offset}/${bytes}`, count],
    ]),
  );
}

/**
 * The same for virtio-mmio, whose regions are told apart by the device type that the driver reads
 * from them.
 */
function mmioAccessesIn(raw: string, deviceId: number): Record<string, number> {
  const accesses = raw.split("\n").flatMap((line) => {
    const [, access, address, value, size] = line.match(
      /_(read|write) cpu \S+ mr \S+ addr (\S+) value (\S+) size (\d) name 'virtio-mmio'$/,
    ) ?? [];
    const offset = Number(address) % 512;
    return access ? [{ access, base: Number(address) - offset, offset, value, size }] : [];
  });
  const { base } = accesses.find(({ offset, value }) =>
    offset === 8 && Number(value) === deviceId
  )!;
  const counts: Record<string, number> = {};
  for (const { access, offset, size } of accesses.filter((access) => access.base === base)) {
    if (offset < 0x100) continue;
    const key = `${access} ${offset - 0x100}/${size}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

/** Copies what QEMU writes to one FIFO into another, and keeps it. */
class Tee {
  text = "";
  readonly path: string;
  readonly #from: Deno.FsFile;

  constructor(path: string) {
    this.path = path;
    this.#from = Deno.openSync(path, { read: true, write: true });
  }

  /** Copies until a read that has the end. */
  async copyTo(path: string): Promise<void> {
    using to = await Deno.open(path, { write: true });
    const buffer = new Uint8Array(65_536);
    using from = this.#from;
    while (!this.text.endsWith("\nEND\n")) {
      const bytes = buffer.subarray(0, await from.read(buffer) ?? 0);
      this.text += new TextDecoder("latin1").decode(bytes);
      for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
    }
  }
}

Deno.test("the record has each access of the guest's drivers, as QEMU traced it", async (t) => {
  using directory = temporary();
  await using stack = new AsyncDisposableStack();
  const start = async (kind: string, ...flags: string[]) =>
    stack.use(await Backend.start(kind, flags, directory));
  const devices = {
    blk: await start("blk", "--size=64M"),
    rng: await start("rng"),
    input: await start("input", "--profile=keyboard"),
    net: await start("net", "--null"),
  };
  const { blk, rng, input, net } = devices;
  const frontend = qemuFrontend({ name: "net", deviceId: 1, configBytes: 0, queues: 2 })!;

  await run("mkfifo", [`${directory.path}/tee`]);
  const tee = new Tee(`${directory.path}/tee`);
  await using watch = new GuestWatch({
    directory: directory.path,
    controlPaths: Object.values(devices).map(({ controlPath }) => controlPath),
    tell: (line) => assert(false, line),
    logPath: tee.path,
  });
  const copying = tee.copyTo(watch.log.path);
  const qmpPath = `${directory.path}/second.qmp`;
  await using guest = await Guest.boot({
    devices: [
      ...[blk.device(), rng.device(), input.device()],
      { ...net.device({ romfile: "", ...frontend.properties }), frontend },
    ],
    qemuArguments: [
      ...[...watch.arguments, "-qmp", `unix:${qmpPath},server=on,wait=off`],
      ...["-device", "pcie-root-port,id=plugs"],
    ],
  });

  await steps(t, {
    "config space by offset and length equals the raw trace": async () => {
      await watch.attached;
      await guest.qmp("trace-event-set-state", { name: "memory_region_ops_*", enable: false });
      await Deno.writeTextFile(tee.path, "END\n", { create: false });
      await copying;
      await watch.end();
      const records: Record<string, RecordJson> = {};
      for (const [type, device] of Object.entries(devices)) {
        const record = records[type] = await device.record();
        // Not `lost`: the tee waits while the log is full, where QEMU would have dropped lines.
        assertEquals(accessesOf(record), accessesIn(tee.text, type), type);
        assertEquals(record.config.reads.source, "traced");
      }
      const counts = Object.entries(records).map(([type, { traced }]) => [
        ...[type, traced!.config.length > 0],
      ]);
      assertEquals(Object.fromEntries(counts), { blk: true, rng: false, input: true, net: true });
      const { fields } = records.blk.config;
      const reads = (name: string) => fields.find((field) => field.name === name)!.reads;
      // The firmware asks too
      assert(reads("capacity") >= 4, `${reads("capacity")} reads`);
      assert(reads("seg_max") >= 1);
      assertEquals(fields.every(({ writes }) => writes === 0), true);
    },

    "status bits, feature words and queues come in the driver's order": async () => {
      const { traced, status, features } = await rng.record();
      const latest = traced!.timeline.latest;
      const written = latest.filter(({ access }) => access === "write");
      const last = written.findLastIndex(({ register, value }) =>
        register === "device_status" && value === "0x0"
      );
      const steps = written.slice(last).map(({ register, value, index }) =>
        register === "device_status" ? `status ${value}` : `${register} ${index ?? value}`
      );
      const order = [
        ...["status 0x0", "status 0x1", "status 0x3"],
        ...["driver_feature 0", "driver_feature 1", "status 0xb"],
        ...["queue_desc 0", "queue_driver 0", "queue_device 0"],
        ...["queue_enable 0", "status 0xf"],
      ];
      assertEquals(steps.filter((step, i) => order.includes(step) && steps[i - 1] !== step), order);
      // Traced words are what the front-end reported in the end
      const words = [0, 1].map((word) =>
        Number(
          written.findLast((entry) => entry.register === "driver_feature" && entry.index === word)!
            .value,
        )
      );
      for (const { bit, acknowledged } of features.filter(({ bit }) => bit < 64 && bit !== 30)) {
        assertEquals(acknowledged, (words[bit >> 5] >>> (bit & 31) & 1) === 1, `bit ${bit}`);
      }
      // The back-end's own view of it is in its place between the driver's steps
      const at = (name: string, value?: string) =>
        latest.findLastIndex((entry) =>
          entry.register === name && (value === undefined || entry.value === value)
        );
      assert(at("device_status", "0xb") < at("ring start"));
      assertEquals(latest[at("ring start")].source, "reported");
      assertEquals(
        status.timeline.filter(({ source }) => source === "traced").slice(-5)
          .map(({ status }) => status),
        [0, 1, 3, 11, 15],
      );
    },

    "vhostd watch attaches to the running guest, and leaves QEMU as it was": async () => {
      const before = (await rng.record()).traced!.timeline.total;
      await using cli = new CliProcess(["watch", `--qmp=${qmpPath}`, directory.path]);
      await cli.until("watches ");
      const device = await ok(
        guest,
        "basename $(readlink -f /sys/bus/virtio/drivers/virtio_rng/virtio*)",
      );
      const driver = "/sys/bus/virtio/drivers/virtio_rng";
      await ok(guest, `echo ${device} >${driver}/unbind; echo ${device} >${driver}/bind`);
      await rng.until(({ traced }) => {
        const { total, latest } = traced!.timeline;
        return total > before + 20 && traced!.until === null &&
          latest.some(({ register }) => register === "queue_reset" || register === "queue_enable");
      });
      // A device that is plugged in meanwhile, and out
      const late = await start("rng");
      const addr = { type: "unix", data: { path: late.socketPath } };
      const backend = { type: "socket", data: { addr, server: false } };
      await guest.qmp("chardev-add", { id: "late", backend });
      await guest.qmp("device_add", {
        ...{ driver: "vhost-user-rng-pci", id: "late", chardev: "late", bus: "plugs" },
      });
      await cli.until("watches rng, which was plugged in");
      const plugged = await late.until(({ traced }) =>
        traced!.timeline.latest.some(({ register, value }) =>
          register === "device_status" && value === "0xf"
        )
      );
      assert(plugged.traced!.until === null && plugged.traced!.isWhole);
      const unplugged = guest.qmpEvent("DEVICE_DELETED");
      await guest.qmp("device_del", { id: "late" });
      await unplugged;
      assert((await late.until(({ traced }) => traced!.until !== null)).traced!.isComplete);
      // The guest goes on while the watch is stopped and its FIFO full
      cli.kill("SIGSTOP");
      assertEquals((await ok(guest, "seq 4000")).length, 18_892);
      cli.kill("SIGCONT");
      const lossy = await rng.until(({ traced }) => traced!.lost > 0);
      assertStringIncludes(lossy.config.reads.note, "lost");
      const second = new CliProcess(["watch", `--qmp=${qmpPath}`, directory.path]);
      assertStringIncludes(await second.until("greeting"), "another client");
      await second[Symbol.asyncDispose]();
      const { status, stderr } = await cli.stop("SIGINT");
      // Its posts were late while it was stopped
      const lines = stderr.split("\n").filter((line) => !/^$|that answers at|is back$/.test(line));
      assertEquals([status, lines], [0, []]);
      const events = await guest.qmp("trace-event-get-state", { name: "memory_region_ops_*" });
      assert((events as { state: string }[]).every(({ state }) => state === "disabled"));
      const { traced, config } = await rng.record();
      assert(traced!.until !== null && traced!.isWhole);
      assertEquals([traced!.isComplete, config.reads.source], [false, "not observable"]);
    },
  });
});

Deno.test("the record has each access on virtio-mmio", async () => {
  using directory = temporary();
  await using blk = await Backend.start("blk", ["--size=64M"], directory);
  await using input = await Backend.start("input", ["--profile=keyboard"], directory);
  await run("mkfifo", [`${directory.path}/tee`]);
  const tee = new Tee(`${directory.path}/tee`);
  await using watch = new GuestWatch({
    directory: directory.path,
    controlPaths: [blk.controlPath, input.controlPath],
    tell: (line) => assert(false, line),
    logPath: tee.path,
  });
  const copying = tee.copyTo(watch.log.path);
  await using guest = await Guest.boot({
    machine: "microvm",
    devices: [blk.device(), input.device()],
    qemuArguments: watch.arguments,
  });
  await watch.attached;
  await guest.powerOff();
  await Deno.writeTextFile(tee.path, "END\n", { create: false });
  await copying;
  await watch.end();
  for (const [device, id] of [[blk, 2], [input, 18]] as const) {
    const record = await device.record();
    assertEquals(accessesOf(record), mmioAccessesIn(tee.text, id));
    assert(record.traced!.config.length > 10);
    assertEquals(record.config.reads.source, "traced");
  }
});
