import { assertEquals } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { Backend, ok, temporary } from "./lib/helpers.ts";

/**
 * A driver as a shell script. It unbinds the kernel's driver, then reads and writes config space in
 * memory, 0x2000 bytes into QEMU's BAR 2. It prints three types, the first letter of the name and
 * the value; then it marks and acknowledges the first reading.
 */
const DRIVER = `
  for device in /sys/bus/virtio/devices/*; do
    [ $(cat $device/device) = 0x0026 ] && pci=$(dirname $(readlink -f $device))
  done
  echo \${pci##*/} >$pci/driver/unbind && echo 1 >$pci/enable
  base=$(sed -n '3s/ .*//p' $pci/resource)
  get() { printf '%d\\n' $(devmem $((base + 0x2000 + $1)) 8); }
  put() { devmem $((base + 0x2000 + $1)) 8 $2; }
  for at in 0 3 7 9 33 34 35 36; do get $at; done
  put 7 0x83; put 6 $(get 5); put 2 0x04
`;

Deno.test("a driver in a guest finds the sensor's readings, and the record shows its marks", async () => {
  using directory = temporary();
  await using sensor = await Backend.start("sensor", [], directory);
  await sensor.post("set", { name: "door", value: -2, unit: "cm" });
  const frontend = qemuFrontend({ name: "sensor", deviceId: 38, configBytes: 144, queues: 1 });
  await using machine = await Guest.boot({ devices: [{ ...sensor.device(), frontend }] });

  const bytes = (await ok(machine, DRIVER)).split("\n").map(Number);
  assertEquals(bytes, [1, 2, 3, "d".charCodeAt(0), 0xfe, 0xff, 0xff, 0xff]);
  const { config } = await sensor.record();
  assertEquals(config.layout, "self-describing");
  const fieldsOf = (name: string) => config.fields.filter((field) => field.name.startsWith(name));
  assertEquals(fieldsOf("reading0.").map(({ used }) => used), [true, true, true, true]);
  assertEquals(fieldsOf("reading1.").map(({ used }) => used), [false, false, false, false]);
  const [{ acknowledged, left }] = fieldsOf("followed");
  assertEquals([acknowledged, left], [["READING_0"], []]);
});
