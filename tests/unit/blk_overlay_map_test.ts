import { assertEquals } from "@std/assert";
import { MAP_PAGE_BYTES } from "../../backends/blk/overlay/format.ts";
import { OverlayMap } from "../../backends/blk/overlay/overlay_map.ts";
import { Errno, openFile } from "../../src/linux/mod.ts";

Deno.test("OverlayMap.allocate() leaves blocks live that were, where the map cannot be written", () => {
  const map = new OverlayMap(MAP_PAGE_BYTES);
  map.load(Int32Array.of(3 << 8), 1); // blocks 40 and 41
  // Nothing is open at such a number
  assertEquals(map.allocate(10, 70, 2 ** 30, 0), Errno.EBADF);
  assertEquals([map.liveCount, map.live.hasAll(40, 41), map.hasNew], [2, true, false]);
});

Deno.test("OverlayMap.allocate() writes and notes the blocks between those that were live", async () => {
  const path = await Deno.makeTempFile();
  try {
    using file = openFile(path, { write: true });
    const map = new OverlayMap(MAP_PAGE_BYTES);
    map.load(Int32Array.of(3 << 8), 1); // blocks 40 and 41
    assertEquals(map.allocate(10, 70, file.number, 0), 0);
    assertEquals([map.liveCount, map.live.hasAll(10, 70), map.hasNew], [61, true, true]);
    assertEquals(map.snapshot().pages.length, 1);
    const written = new Int32Array((await Deno.readFile(path)).buffer);
    assertEquals(written, new Int32Array(map.live.words.subarray(0, 3)));
  } finally {
    await Deno.remove(path);
  }
});
