import { assertEquals, assertThrows } from "@std/assert";
import { MAX_GUESTS } from "../../backends/net/switch/switch.ts";
import { createMemfd, type Fd } from "../../src/linux/mod.ts";
import { libc } from "../../src/linux/libc.ts";
import { sealOwn } from "../../src/linux/file/memory_file.ts";
import { GuestMemory, RegionError, type RegionRequest, viewMemory } from "../../src/memory/mod.ts";
import { processState } from "../../tools/lib/process_state.ts";

const MiB = 2 ** 20;

function region(
  guestAddress: number,
  size: number,
  options: Partial<RegionRequest> = {},
): RegionRequest {
  return {
    guestAddress: BigInt(guestAddress),
    size: BigInt(size),
    userAddress: 0x7000_0000_0000n + BigInt(guestAddress),
    mmapOffset: 0n,
    ...options,
  };
}

/** A memory file that cannot shrink. */
function memoryFile(bytes: number): Fd {
  const fd = createMemfd("guest", bytes);
  sealOwn(fd.number);
  return fd;
}

/** A memory file with a marker at `offset`. */
function marked(bytes: number, offset: number, marker: number[]): Fd {
  const fd = memoryFile(bytes);
  const file = Deno.openSync(`/proc/self/fd/${fd.number}`, { write: true });
  file.seekSync(offset, Deno.SeekMode.Start);
  file.writeSync(Uint8Array.from(marker));
  file.close();
  return fd;
}

Deno.test("GuestMemory places a region at its guest address", () => {
  using memory = new GuestMemory();
  const view = viewMemory(memory.handle);
  using fd = marked(2 * MiB, MiB + 5, [1, 2, 3]);
  memory.add(region(3 * MiB, MiB, { mmapOffset: BigInt(MiB) }), fd.number);
  assertEquals(memory.regions.translate(3 * MiB + 5, 3), 3 * MiB + 5);
  assertEquals([...view.u8.subarray(3 * MiB + 5, 3 * MiB + 8)], [1, 2, 3]);
  assertEquals(memory.regions.translateUser(0x7000_0000_0000 + 3 * MiB + 5, 1), 3 * MiB + 5);
});

Deno.test("GuestMemory.isUntouched is true before a guest has run", () => {
  for (
    const [offset, isUntouched] of [[MiB / 2, true], [0x400, false], [MiB + 8, false]] as const
  ) {
    using memory = new GuestMemory();
    using fd = marked(2 * MiB, offset, [1]);
    memory.add(region(0, 2 * MiB), fd.number);
    assertEquals(memory.isUntouched, isUntouched, `${offset}`);
  }
});

Deno.test("GuestMemory finds room for a region with addresses of 47 bits and an odd size", () => {
  using memory = new GuestMemory();
  const view = viewMemory(memory.handle);
  using fd = marked(0x3b10, 0x3b0f, [9]);
  const at = 0x7f12_3456_7000;
  memory.add(region(at, 0x3b10, { userAddress: BigInt(at) }), fd.number);
  const index = memory.regions.translate(at + 0x3b0f, 1);
  assertEquals(view.u8[index], 9);
  assertEquals(memory.regions.translate(at + 0x3b10, 1), -1);
});

Deno.test("GuestMemory maps a region whose file offset is inside a page", () => {
  using memory = new GuestMemory();
  const view = viewMemory(memory.handle);
  using fd = marked(8192, 4096 + 0x123, [7]);
  memory.add(region(0x10_0000, 100, { mmapOffset: 4096n + 0x123n }), fd.number);
  assertEquals(view.u8[memory.regions.translate(0x10_0000, 1)], 7);
});

Deno.test("GuestMemory shows regions of many threads' views, and removes them", () => {
  using memory = new GuestMemory();
  const [one, two] = [viewMemory(memory.handle), viewMemory(memory.handle)];
  using fd = memoryFile(MiB);
  memory.add(region(0, MiB), fd.number);
  one.u8[100] = 42;
  assertEquals(two.u8[100], 42);
  memory.remove(region(0, MiB));
  assertEquals(memory.regions.translate(100, 1), -1);
  memory.add(region(0, MiB), fd.number);
  assertEquals(two.u8[100], 42);
});

Deno.test("GuestMemory refuses regions that are empty, too long for their file, or over others", () => {
  using memory = new GuestMemory();
  using fd = memoryFile(MiB);
  assertThrows(() => memory.add(region(0, 0), fd.number), RegionError, "size");
  assertThrows(
    () => memory.add(region(0, MiB + 1), fd.number),
    RegionError,
    "memory file of at least",
  );
  assertThrows(
    () => memory.add(region(0, MiB, { mmapOffset: 1n }), fd.number),
    RegionError,
    "at least",
  );
  assertThrows(
    () => memory.add(region(0, MiB, { guestAddress: 2n ** 64n - 1n }), fd.number),
    RegionError,
    "below 2^52",
  );
  memory.add(region(MiB, MiB), fd.number);
  assertThrows(() => memory.add(region(MiB + 4096, 4096), fd.number), RegionError, "apart");
  assertThrows(
    () => memory.add(region(8 * MiB, 4096, { userAddress: 0x7000_0010_0000n }), fd.number),
    RegionError,
    "apart",
  );
  assertThrows(() => memory.remove(region(MiB, 4096)), RegionError, "was added");
  assertEquals(memory.regions.regions.length, 1);
});

Deno.test("GuestMemory.withdraw() moves regions away from late users of their old places", async () => {
  using memory = new GuestMemory();
  const late = viewMemory(memory.handle);
  using low = createMemfd("guest", MiB);
  using high = createMemfd("guest", MiB);
  await memory.prepare([low.number, high.number]);
  memory.add(region(0, MiB), low.number);
  memory.add(region(8 * MiB, MiB), high.number);
  late.u8.fill(7, 0x3000, 0x3010);
  late.u8[8 * MiB] = 8;
  const withdrawn = memory.withdraw([{ index: 0x3004, bytes: 4 }]);
  const [a, b] = [memory.regions.translate(0, MiB), memory.regions.translate(8 * MiB, MiB)];
  assertEquals([a > 0, b > 0, a !== 8 * MiB, b !== 8 * MiB], [true, true, true, true]);
  // The kept data is still readable at the old place, and writes there do not reach the guest.
  assertEquals([...late.u8.subarray(0x3002, 0x300a)], [0, 0, 7, 7, 7, 7, 0, 0]);
  late.u8.fill(99, 0, MiB);
  late.u8.fill(99, 8 * MiB, 9 * MiB);
  assertEquals([late.u8[a + 0x3000], late.u8[a], late.u8[b]], [7, 0, 8]);
  // Nothing else is mapped at the old places while they are in use.
  memory.remove(region(0, MiB));
  memory.add(region(0, MiB), low.number);
  assertEquals(late.u8[memory.regions.translate(0x3000, 1)], 7);
  assertEquals(late.u8[0x3000], 99);
  withdrawn[Symbol.dispose]();
  assertEquals(late.u8[0x3000], 0);
  memory.remove(region(0, MiB));
  memory.add(region(0, MiB), low.number);
  assertEquals(memory.regions.translate(0x3000, 1), 0x3000);
});

Deno.test("GuestMemory has room for each guest of a switch, wherever V8 has put its heap", () => {
  const TiB = 2n ** 40n, PAGE_BYTES = 4096n;
  const PROT_NONE = 0, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20, MAP_FIXED_NOREPLACE = 0x10_0000;
  using stack = new DisposableStack();
  // V8 takes random addresses below 64 TiB.
  for (let address = TiB; address < 64n * TiB; address += TiB) {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    const mapped = libc.mmap(address, PAGE_BYTES, PROT_NONE, flags, -1, 0n);
    if (mapped === address) stack.defer(() => libc.munmap(address, PAGE_BYTES));
  }
  for (let guest = 0; guest < MAX_GUESTS; guest++) stack.use(new GuestMemory());
});

Deno.test("GuestMemory leaves no mapping behind", () => {
  const before = processState();
  for (let round = 0; round < 20; round++) {
    using memory = new GuestMemory();
    using fd = memoryFile(MiB);
    for (let i = 0; i < 8; i++) memory.add(region(i * MiB, MiB / 2), fd.number);
    memory.remove(region(3 * MiB, MiB / 2));
    if (round % 2) memory.clear();
  }
  assertEquals(processState(), before);
});
