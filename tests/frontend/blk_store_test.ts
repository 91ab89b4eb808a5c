import { assert, assertEquals } from "@std/assert";
import { openFileStore } from "../../backends/blk/file_store.ts";
import { openMemoryStore } from "../../backends/blk/memory_store.ts";
import { attachLocalStore } from "../../backends/blk/stores.ts";
import type { FileHandle, OpenStore, Store, StoreRequest } from "../../backends/blk/store.ts";
import { addressOf, Errno, pinnedBuffer } from "../../src/linux/mod.ts";
import { Parts } from "../../src/virtqueue/mod.ts";

/** By system calls, through the page cache. */
const OPTIONS = { io: "sync", direct: false, lock: true, log() {} } as const;

const MIB = 2 ** 20;

/** Memory of this process in place of a guest's. */
const u8 = new Uint8Array(pinnedBuffer(8 * MIB));
const memory = { u8, base: addressOf(u8) };

function attach(open: OpenStore<FileHandle>): Store {
  return attachLocalStore(open.handle, {
    memory,
    io: undefined,
    done: () => {},
    flush: () => {},
  });
}

/** A request whose data is `count` parts of `length` bytes, `stride` bytes apart. */
function scattered(offset: number, count: number, length: number, stride: number): StoreRequest {
  const data = new Parts(u8);
  for (let i = 0; i < count; i++) data.push(i * stride, length);
  return { data, dataOffset: 0, offset, bytes: count * length };
}

function withStores(name: string, test: (open: OpenStore<FileHandle>, store: Store) => void): void {
  Deno.test(`${name} (file)`, () => {
    const path = Deno.makeTempFileSync();
    Deno.truncateSync(path, 4 * MIB);
    try {
      using open = openFileStore(path, { ...OPTIONS, readOnly: false });
      test(open, attach(open));
    } finally {
      Deno.removeSync(path);
    }
  });
  Deno.test(`${name} (memory)`, () => {
    using open = openMemoryStore(4 * MIB, { readOnly: false });
    test(open, attach(open));
  });
}

withStores("A store goes on where a system call takes no more parts", (_open, store) => {
  const count = 3000, length = 512, stride = 513;
  for (let i = 0; i < count; i++) u8.fill(i % 251 + 1, i * stride, i * stride + length);
  const request = scattered(512, count, length, stride);
  assertEquals(store.write(request), 0);
  u8.fill(0);
  assertEquals(store.read(request), 0);
  for (let i = 0; i < count; i++) {
    const part = u8.subarray(i * stride, i * stride + length);
    assert(part.every((byte) => byte === i % 251 + 1), `part ${i}`);
    assertEquals(u8[i * stride + length], 0);
  }
});

withStores("A store skips parts without bytes", (_open, store) => {
  const data = new Parts(u8);
  for (const [index, bytes] of [[0, 0], [8, 100], [4, 0], [200, 412], [0, 0]]) {
    data.push(index, bytes);
  }
  u8.fill(0).fill(1, 8, 108).fill(2, 200, 612);
  assertEquals(store.write({ data, dataOffset: 0, offset: 0, bytes: 512 }), 0);
  u8.fill(9);
  assertEquals(store.read(scattered(0, 1, 512, 512)), 0);
  assert(u8.subarray(0, 100).every((byte) => byte === 1));
  assert(u8.subarray(100, 512).every((byte) => byte === 2));
});

withStores("A store leaves what is before and behind the data of a request", (_open, store) => {
  const data = new Parts(u8);
  for (const [index, bytes] of [[0, 10], [16, 300], [400, 300], [800, 1]]) data.push(index, bytes);
  u8.fill(1);
  assertEquals(store.write({ data, dataOffset: 20, offset: 512, bytes: 512 }), 0);
  u8.fill(2);
  assertEquals(store.read({ data, dataOffset: 20, offset: 512, bytes: 512 }), 0);
  const read = [...u8.subarray(0, 900)].flatMap((byte, i) => byte === 1 ? [i] : []);
  const expected = Array.from({ length: 900 }, (_, i) => i)
    .filter((i) => i >= 26 && i < 316 || i >= 400 && i < 622);
  assertEquals(read, expected);
});

withStores("A store says ENODATA where the file ends too early", (_open, store) => {
  assertEquals(store.read(scattered(4 * MIB - 512, 1, 1024, 1024)), Errno.ENODATA);
  assertEquals(store.read(scattered(8 * MIB, 1, 512, 512)), Errno.ENODATA);
});

Deno.test("A store says EFBIG beyond the size that the process may give files, and lives", async () => {
  const path = Deno.makeTempFileSync();
  Deno.truncateSync(path, 4 * MIB);
  const limit = (bytes: string) =>
    new Deno.Command("prlimit", { args: [`--pid=${Deno.pid}`, `--fsize=${bytes}:unlimited`] })
      .output();
  try {
    using open = openFileStore(path, { ...OPTIONS, readOnly: false });
    const store = attach(open);
    assert((await limit(String(MIB))).success);
    assertEquals(store.write(scattered(MIB - 512, 1, 512, 512)), 0);
    assertEquals(store.write(scattered(MIB, 1, 512, 512)), 27); // EFBIG
    assertEquals(store.read(scattered(MIB, 1, 512, 512)), 0);
  } finally {
    await limit("unlimited");
    Deno.removeSync(path);
  }
});

withStores("A store says EFAULT where there is no memory", (_open, store) => {
  const data = new Parts(u8);
  data.push(-memory.base + 4096, 512); // the first page of the process is never mapped
  for (const move of ["read", "write"] as const) {
    assertEquals(store[move]({ data, dataOffset: 0, offset: 0, bytes: 512 }), 14);
  }
});

withStores("A store counts the space that it takes", (open, store) => {
  const allocated = () => open.describe().allocatedBytes as number;
  assertEquals(allocated(), 0);
  assertEquals(store.write(scattered(MIB, 1, MIB, MIB)), 0);
  assertEquals(store.flush(scattered(0, 0, 0, 0)), 0);
  const full = allocated();
  assert(full >= MIB);
  assertEquals(store.discard({ ...scattered(MIB, 0, 0, 0), bytes: MIB }), 0);
  assert(allocated() <= full - MIB + 8192);
});

Deno.test("A store that may not write says EBADF for every way to write", () => {
  const path = Deno.makeTempFileSync();
  Deno.truncateSync(path, MIB);
  try {
    using open = openFileStore(path, { ...OPTIONS, readOnly: true });
    const store = attach(open);
    const request = scattered(0, 1, 512, 512);
    assertEquals(store.write(request), Errno.EBADF);
    assertEquals(store.discard(request), Errno.EBADF);
    assertEquals(store.writeZeroes(request, true), Errno.EBADF);
    assertEquals(store.writeZeroes(request, false), Errno.EBADF);
    assertEquals(store.read(request), 0);
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("A memory store that is read without being written takes no memory", () => {
  using open = openMemoryStore(4 * MIB, { readOnly: false });
  const store = attach(open);
  u8.fill(9);
  assertEquals(store.read(scattered(0, 1, 4 * MIB, 4 * MIB)), 0);
  assert(u8.subarray(0, 4 * MIB).every((byte) => byte === 0));
  assertEquals(open.describe(), { allocatedBytes: 0 });
});

Deno.test("A file store leaves no descriptor behind when it cannot be opened", () => {
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  for (const path of ["/proc/self", "/dev/null", "/none"]) {
    try {
      openFileStore(path, { ...OPTIONS, readOnly: true });
      assert(false);
    } catch (error) {
      assert(String(error).includes(`Cannot open disk image ${path}`), String(error));
    }
  }
  assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before);
});
