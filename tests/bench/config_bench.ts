/** Config space: a device's own accesses, and a driver's. */
import { bytes, ConfigSpace, packed, u16, u32, u64, u8 } from "../../src/virtio/mod.ts";

const layout = packed({
  capacity: u64("Size"),
  size_max: u32("Largest segment"),
  seg_max: u32("Most segments"),
  writeback: u8("Cache mode", { access: "rw" }),
  unused: bytes(3, "Padding"),
  num_queues: u16("Queues"),
});
const space = new ConfigSpace(layout);
const { view } = space;
const writebackOffset = 16;
const values = [Uint8Array.of(0), Uint8Array.of(1)];
let turn = 0;

Deno.bench("device: read u32", { group: "config: device" }, () => {
  if (view.seg_max !== 0) throw new Error("Expected 0");
});

Deno.bench("device: write u32", { group: "config: device" }, () => {
  view.size_max = ++turn;
});

Deno.bench("device: read u64", { group: "config: device" }, () => {
  if (view.capacity !== 0n) throw new Error("Expected 0");
});

Deno.bench("driver: read all of it", { group: "config: driver" }, () => {
  space.read(0, layout.size);
});

Deno.bench("driver: write one field", { group: "config: driver" }, () => {
  space.write(writebackOffset, values[++turn & 1]);
});
