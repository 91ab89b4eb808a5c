import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { CHUNK_PAGES, MappedPages } from "../../backends/blk/mapped_pages.ts";

/** Whether each page may be accessed. */
function touchable(pages: MappedPages): boolean[] {
  return Array.from({ length: pages.count }, (_, page) => {
    const may = pages.enter(page, page);
    if (may) pages.leave();
    return may;
  });
}

/** Pages that may be accessed once they are added. */
function opened(count: number): MappedPages {
  const pages = new MappedPages(count);
  pages.open();
  return pages;
}

Deno.test("MappedPages has exactly the pages that were added and not removed", () => {
  const range = fc.tuple(fc.nat(140), fc.nat(70), fc.boolean());
  fc.assert(fc.property(fc.integer({ min: 1, max: 140 }), fc.array(range), (count, changes) => {
    const pages = opened(count);
    const expected = new Array<boolean>(count).fill(false);
    for (const [first, more, isThere] of changes) {
      // Ranges beyond the end are cut off there.
      const last = first + more;
      pages.locked(() => isThere ? pages.add(first, last) : pages.remove(first, last));
      expected.fill(isThere, first, Math.min(last + 1, count));
    }
    assertEquals(touchable(pages), expected);
  }));
});

Deno.test("MappedPages.enter() requires every page of a range", () => {
  const pages = opened(100);
  pages.locked(() => pages.add(10, 89));
  for (const missing of [10, 31, 32, 63, 64, 89]) {
    pages.locked(() => pages.remove(missing, missing));
    assertEquals(pages.enter(10, 89), false, `without page ${missing}`);
    pages.locked(() => pages.add(missing, missing));
  }
  assertEquals(pages.enter(10, 89), true);
  pages.leave();
  assertEquals(pages.enter(9, 89), false);
  assertEquals(pages.enter(99, 100), false);
  assertEquals(pages.enter(100, 100), false);
});

Deno.test("MappedPages allows no access while it is closed, and is empty afterwards", () => {
  const pages = new MappedPages(3 * CHUNK_PAGES);
  assertEquals([pages.isOpen, pages.enter(0, 0)], [false, false]);
  pages.open();
  pages.locked(() => {
    pages.add(0, 7);
    pages.setKnown(2);
  });
  assertEquals([pages.enter(0, 7), pages.isKnown(1), pages.isKnown(2)], [true, false, true]);
  pages.leave();
  pages.close();
  assertEquals([pages.isOpen, pages.enter(0, 7)], [false, false]);
  // A thread may report late.
  pages.locked(() => {
    pages.add(8, 9);
    pages.setKnown(1);
  });
  pages.open();
  assertEquals([pages.isOpen, pages.enter(0, 7), pages.enter(8, 9)], [true, false, false]);
  assertEquals([pages.isKnown(1), pages.isKnown(2)], [false, false]);
});

Deno.test("MappedPages is shared by every thread that joins it", () => {
  for (const count of [1, 31, 32, 33, CHUNK_PAGES, 40 * CHUNK_PAGES + 1]) {
    const pages = opened(count);
    const other = new MappedPages(pages.memory);
    assertEquals(other.count, count);
    other.locked(() => {
      other.add(count - 1, count - 1);
      other.setKnown(Math.floor((count - 1) / CHUNK_PAGES));
    });
    assertEquals(pages.enter(count - 1, count - 1), true);
    pages.leave();
    assertEquals(pages.isKnown(Math.floor((count - 1) / CHUNK_PAGES)), true);
  }
});

Deno.test("MappedPages has room for a limited number of threads", () => {
  const { memory } = new MappedPages(1);
  for (let i = 1; i < 257; i++) new MappedPages(memory);
  assertThrows(() => new MappedPages(memory), RangeError, "at most 257 threads");
});

Deno.test("MappedPages.remove() returns only when no thread accesses the pages any more", async () => {
  const pages = opened(64);
  pages.locked(() => pages.add(0, 63));
  assertEquals(pages.enter(0, 63), true);
  const source = `
    import { MappedPages } from ${
    JSON.stringify(new URL("../../backends/blk/mapped_pages.ts", import.meta.url))
  };
    self.onmessage = ({ data }) => {
      const pages = new MappedPages(data.pages);
      const words = new Int32Array(data.step);
      Atomics.store(words, 0, 1);
      pages.locked(() => pages.remove(3, 3));
      self.postMessage(Atomics.load(words, 1));
    };`;
  const worker = new Worker(`data:text/typescript,${encodeURIComponent(source)}`, {
    type: "module",
  });
  try {
    const step = new Int32Array(new SharedArrayBuffer(8));
    const answer = new Promise<number>((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
    });
    worker.postMessage({ pages: pages.memory, step: step.buffer });
    while (Atomics.load(step, 0) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    // The page is removed at once, but the call returns only after the access ends.
    const other = new MappedPages(pages.memory);
    while (other.enter(3, 3)) other.leave();
    Atomics.store(step, 1, 1);
    pages.leave();
    assertEquals(await answer, 1);
  } finally {
    worker.terminate();
  }
});
