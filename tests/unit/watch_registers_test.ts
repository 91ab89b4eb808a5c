import { assertEquals } from "@std/assert";
import { regionKind } from "../../src/cli/watch/qemu_devices.ts";
import { type RawAccess, Registers } from "../../src/cli/watch/registers.ts";
import { parseTraceLine } from "../../src/cli/watch/trace_log.ts";
import { REGISTERS } from "../../src/runtime/driver_trace.ts";

/** The register of each access, as `name+offset`, with its word or queue. */
function placesOf(kind: RawAccess["kind"], accesses: [string, number, number, number?][]) {
  const registers = new Registers();
  return accesses.map(([access, offset, bytes, value = 0]) => {
    const place = registers.place({ kind, offset, bytes, value, isWrite: access === "write" });
    return place && `${place.register}+${place.offset} ${place.index}`;
  });
}

Deno.test("the registers of a modern PCI device follow what its driver selects", () => {
  assertEquals(
    placesOf("common", [
      ["write", 0x00, 4, 1],
      ["read", 0x04, 4],
      ["write", 0x08, 4, 1],
      ["write", 0x0c, 4],
      ["write", 0x16, 2, 3],
      ["read", 0x18, 2],
      ["write", 0x24, 4],
      ["read", 0x15, 1],
      ["write", 0x14, 1, 0],
      ["read", 0x04, 4],
      ["read", 0xfff, 1],
    ]),
    [
      ...["device_feature_select+0 null", "device_feature+0 1"],
      ...["driver_feature_select+0 null", "driver_feature+0 1"],
      ...["queue_select+0 null", "queue_size+0 3", "queue_desc+4 3", "config_generation+0 null"],
      ...["device_status+0 null", "device_feature+0 0", "other+4035 null"],
    ],
  );
});

Deno.test("the registers of virtio-mmio have the names of PCI's, without notifications", () => {
  assertEquals(
    placesOf("mmio", [
      ["read", 0x000, 4],
      ["write", 0x014, 4, 1],
      ["read", 0x010, 4],
      ["write", 0x050, 4],
      ["read", 0x060, 4],
      ["write", 0x064, 4],
      ["write", 0x030, 4, 2],
      ["write", 0x044, 4],
      ["read", 0x0fc, 4],
      ["read", 0x108, 1],
    ]),
    [
      ...["magic_value+0 null", "device_feature_select+0 null", "device_feature+0 1"],
      ...[undefined, undefined, undefined, "queue_select+0 null", "queue_enable+0 2"],
      ...["config_generation+0 null", "config+8 null"],
    ],
  );
});

Deno.test("a legacy device's config space moves while its driver has MSI-X on", () => {
  assertEquals(
    placesOf("legacy", [
      ["read", 0x14, 1],
      ["write", 0x14, 2],
      ["read", 0x14, 2],
      ["read", 0x18, 1],
      ["write", 0x12, 1, 0],
      ["read", 0x14, 1],
    ]),
    [
      ...["config+0 null", "config_msix_vector+0 null", "config_msix_vector+0 null"],
      ...["config+0 null", "device_status+0 null", "config+0 null"],
    ],
  );
});

Deno.test("the record knows each register that a watch posts", () => {
  for (const kind of ["common", "device", "legacy", "mmio"] as const) {
    const registers = new Registers();
    for (let offset = 0; offset < 0x200; offset++) {
      for (const isWrite of [false, true]) {
        const place = registers.place({ kind, offset, bytes: 2, value: 0xffff_ffff, isWrite });
        if (place !== undefined) assertEquals(REGISTERS.includes(place.register), true);
      }
    }
  }
});

Deno.test("regions have their kind by QEMU's names", () => {
  const names = [
    ...["virtio-pci-common-virtio-blk", "virtio-pci-device-virtio-net", "virtio-pci-common"],
    ...["virtio-pci-isr-virtio-blk", "virtio-pci-notify-virtio-blk", "virtio-pci", "virtio-mmio"],
    ...["virtio-vga", "virtio-pci-notify-pio-virtio-blk"],
  ];
  assertEquals(
    names.map(regionKind),
    [
      ...["common", "device", "common", "other", "other", "legacy", "mmio", "other", "other"],
    ] as const,
  );
});

const LINE = "memory_region_ops_read cpu 0 mr 0x55a8 addr 0xfebf200c value 0x7e size 4 " +
  "name 'virtio-pci-device-virtio-blk'";

Deno.test("parseTraceLine() reads accesses with and without QEMU's time", () => {
  const access = {
    ...{ at: 7, isWrite: false, region: "0x55a8", name: "virtio-pci-device-virtio-blk" },
    ...{ address: 0xfebf200c, value: "0x7e", bytes: 4 },
  };
  assertEquals(parseTraceLine(LINE, 7), access);
  assertEquals(parseTraceLine(`11240@1795763912.906621:${LINE}`, 7), {
    ...{ ...access, at: 1795763912906.621 },
  });
  assertEquals(parseTraceLine(LINE.replace("_read cpu 0", "_write cpu -1"), 7)?.isWrite, true);
});

Deno.test("parseTraceLine() takes nothing else", () => {
  const others = [
    "",
    LINE.slice(1),
    LINE.slice(0, -1),
    `${LINE} `,
    LINE.replace("virtio-pci-device-virtio-blk", "ioapic"),
    LINE.replace("blk", "b\x1b[2Jlk"),
    LINE.replace("blk", "b' name 'virtio-x"),
    LINE.replace("0x7e", "0x11112222333344445"),
    LINE.replace("size 4", "size 44"),
    LINE.replace("size 4", "size -4"),
    LINE + LINE,
  ];
  for (const line of others) assertEquals(parseTraceLine(line, 7), undefined, line);
});
