import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { devices } from "../../backends/mod.ts";
import { describeDevice, describeText } from "../../src/cli/describe_text.ts";
import { loadDevice } from "../../src/cli/devices.ts";
import { deviceHelp, flagText, programHelp } from "../../src/cli/help.ts";
import { capabilities, libvirtDescription, qemuHint } from "../../src/cli/qemu.ts";
import { optionsOf, sharedOptions } from "../../src/cli/shared_options.ts";
import {
  type AnyDevice,
  bitField,
  defineDevice,
  field,
  selfDescribing,
  u16,
} from "../../src/virtio/mod.ts";

const deviceNames = Object.keys(devices);

Deno.test("deviceHelp() has each option of each device", async () => {
  for (const name of deviceNames) {
    const device = await loadDevice(devices, name);
    const help = deviceHelp(device, name);
    for (const [option, definition] of Object.entries(optionsOf(device))) {
      assertStringIncludes(help, `  ${flagText(option, definition)} `);
      assert(help.replace(/\s+/g, " ").includes(definition.about), definition.about);
    }
    for (const width of [40, 60, 80, 100]) {
      const help = deviceHelp(device, name, width);
      const wide = help.split("\n").filter((line) => line.length > width);
      assertEquals(wide, [], `${width} columns`);
      assert(help.includes("--help"));
    }
  }
});

Deno.test("deviceHelp() has sizes as flags take them", async () => {
  const help = deviceHelp(await loadDevice(devices, "blk"), "blk").replace(/\s+/g, " ");
  assertStringIncludes(help, "512 to 64K)"); // --block-size
  assertStringIncludes(help, "default 256M)"); // --trace-max
});

Deno.test("programHelp() names every device", () => {
  for (const name of deviceNames) assertStringIncludes(programHelp(deviceNames), name);
  for (const width of [40, 60, 80]) {
    const lines = programHelp(deviceNames, width).split("\n");
    assertEquals(lines.filter((line) => line.length > width), []);
  }
});

Deno.test("every device has the name in the list of devices", async () => {
  for (const name of deviceNames) assertEquals((await loadDevice(devices, name)).name, name);
});

const ROOT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

Deno.test("describeText() describes rng completely", async () => {
  assertEquals(
    describeText(await loadDevice(devices, "rng")),
    `rng  Entropy from the host (virtio device 4; queues run on threads)

Queues
  #  queue     size  sender  meaning
  0  requestq  1024  driver  Buffers to fill with random bytes

Feature bits
  bit  feature            owner      meaning
   28  INDIRECT_DESC      transport  Descriptors may refer to tables of descriptors
   29  EVENT_IDX          transport  Each side says at which index it wants to be notified
   30  PROTOCOL_FEATURES  transport  vhost-user protocol features are negotiated (vhost)
   32  VERSION_1          transport  Follows virtio 1.0 or later, not the legacy interface
   34  RING_PACKED        transport  Packed virtqueues
   35  IN_ORDER           transport  Buffers are used in the order in which they were made available

Config space  none

Options
  --max-bytes=N  Give at most N bytes per period (bytes, or with K, M, G or T)
  --period=MS    The period of --max-bytes (1 to 60000 ms; default 1000)

Permissions  of deno run; --allow-ffi is all of libc, so these hold mistakes only
  for                    flags
  always                 --allow-ffi
  queue threads          --allow-read=${ROOT}
  a socket from systemd  --allow-env=LISTEN_FDS,LISTEN_PID,LISTEN_FDNAMES
  VHOSTD_TRACE=1         --allow-env=VHOSTD_TRACE
`,
  );
});

const sensor = defineDevice({
  name: "sensor",
  deviceId: 63,
  about: "A sensor",
  module: import.meta.url,
  queues: {
    readings: { about: "Readings", sender: "device", family: "readings" },
    control: { about: "c" },
  },
  config: selfDescribing({
    limit: field(5, u16("Degrees", { access: "rw" })),
    modes: bitField(6, { ALARM: 0, QUIET: 3 }),
  }),
  options: { blkFile: { type: "text", placeholder: "PATH", about: "x" } },
  handlers: () => ({ queues: { readings() {}, control: () => 0 } }),
});

Deno.test("describeText() shows marks, bits and access of a self-describing space", () => {
  const text = describeText(sensor);
  assertStringIncludes(text, "self-describing, ");
  assert(/^ +5 +2 +2 +u16 +rw +limit +Degrees$/m.test(text), text);
  assert(/^ +6 .* bits .* modes .*ALARM\(0\) QUIET\(3\)$/m.test(text), text);
});

Deno.test("describeDevice() returns JSON with the index of each queue", () => {
  const { queues, config } = JSON.parse(JSON.stringify(describeDevice(sensor)));
  assertEquals(queues.map(({ index, many }: { index: number; many: boolean }) => [index, many]), [
    [0, true],
    [null, false],
  ]);
  assertEquals(config.fields[0].mark, { type: 5, offset: 0 });
});

Deno.test("capabilities() follows QEMU's schema", async () => {
  assertEquals(capabilities(await loadDevice(devices, "rng")), { type: "rng" });
  assertEquals(capabilities(await loadDevice(devices, "blk")), {
    type: "block",
    features: ["read-only", "blk-file"],
  });
  assertEquals(capabilities(await loadDevice(devices, "input")).type, "input");
  assertEquals(capabilities(sensor), { type: "sensor" });
});

Deno.test("libvirtDescription() follows QEMU's schema", async () => {
  assertEquals(libvirtDescription(await loadDevice(devices, "blk"), "/usr/libexec/blk", "1.2.3"), {
    description: "vhostd blk: A disk",
    type: "block",
    binary: "/usr/libexec/blk",
    tags: ["vhostd 1.2.3"],
  });
});

Deno.test("qemuHint() is valid for a shell and for QEMU", async () => {
  const blk = await loadDevice(devices, "blk");
  assertEquals(
    qemuHint(blk, "/tmp/a b,c.sock", 2),
    "QEMU: -chardev 'socket,id=blk,path=/tmp/a b,,c.sock' " +
      "-device vhost-user-blk-pci,chardev=blk,num-queues=2 " +
      "-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem " +
      "(SIZE is that of -m: guest memory must be shared)",
  );
});

Deno.test("qemuHint() has QEMU's generic device for a disk whose zones its own device hides", async () => {
  const blk = await loadDevice(devices, "blk");
  assertStringIncludes(
    qemuHint(blk, "/s", 2, false, "blk", ["RO", "ZONED"]),
    "-device vhost-user-test-device-pci,chardev=blk,virtio-id=2,num_vqs=2,config_size=96 ",
  );
});

Deno.test("qemuHint() says which QEMU has a front-end for a device, or that none has", () => {
  const hint = (deviceId: number) =>
    qemuHint({ ...sensor, deviceId } as unknown as AnyDevice, "/s", 3);
  assertStringIncludes(hint(25), "QEMU 9.0 or later: -chardev ");
  assertStringIncludes(hint(3), "QEMU 11.1 or later: ");
  assertStringIncludes(hint(3), "-device vhost-user-test-device-pci,chardev=");
  assertStringIncludes(hint(3), "virtio-id=3,num_vqs=3,config_size=");
  for (const deviceId of [14, 15, 42, 44, 46, 60, 63]) {
    assertEquals(
      hint(deviceId),
      `no QEMU has a front-end for virtio device ${deviceId} ` +
        "(the generic one of 11.1 takes 1 to 13, 16 to 41 and 45, with a queue or more)",
    );
  }
});

Deno.test("optionsOf() refuses a device's option that is one of vhostd's own", () => {
  const device = { ...sensor, options: { fd: sharedOptions.fd } } as unknown as AnyDevice;
  assertThrows(() => optionsOf(device), Error, "to leave --fd to vhostd");
});

Deno.test("optionsOf() has only the flags that affect the device's queues", () => {
  const flags = (threads: AnyDevice["threads"]) =>
    Object.keys(optionsOf({ ...sensor, threads })).filter((name) => /threads|pollUs/.test(name));
  assertEquals(flags(undefined), ["threads", "pollUs"]);
  assertEquals(flags("one"), ["pollUs"]);
  assertEquals(flags("main"), []);
});
