/** The mapped store: a file on tmpfs is mapped, and behaves as with system calls. */
import { assert, assertEquals } from "@std/assert";
import { openFileStore } from "../../backends/blk/file_store.ts";
import { attachLocalStore } from "../../backends/blk/stores.ts";
import type { FileHandle, OpenStore, Store, StoreRequest } from "../../backends/blk/store.ts";
import { addressOf, Errno, isInMemory, openFile, pinnedBuffer } from "../../src/linux/mod.ts";
import { Parts } from "../../src/virtqueue/mod.ts";
import { smallTmpfs } from "./lib/block_devices.ts";
import type { MappedMessage, MappedOrder, MappedOutcome } from "./lib/mapped_store_worker.ts";
import { Random } from "../../tools/lib/random.ts";

const MIB = 2 ** 20;

/** Memory of this process in place of a guest's. */
const u8 = new Uint8Array(pinnedBuffer(4 * MIB));
const memory = { u8, base: addressOf(u8) };

function request(offset: number, bytes: number): StoreRequest {
  const data = new Parts(u8);
  data.push(0, bytes);
  return { data, dataOffset: 0, offset, bytes };
}

interface Disk {
  path: string;
  open: OpenStore<FileHandle>;
  store: Store;
  /** Whether requests are copies at the moment. */
  isMapped(): boolean;
  /** Bytes that the file occupies. */
  allocated(): number;
  write(offset: number, bytes: number, value: number): number;
  /** Reads: returns the value of all bytes, or -1 if they differ; throws an errno. */
  read(offset: number, bytes: number): number;
}

/** Runs a test with an image on tmpfs. */
async function withDisk(
  test: (disk: Disk) => Promise<void> | void,
  { directory = "/dev/shm", bytes = 4 * MIB } = {},
): Promise<void> {
  const path = Deno.makeTempFileSync({ dir: directory, prefix: "vhostd-test-" });
  try {
    Deno.truncateSync(path, bytes);
    {
      using file = openFile(path);
      assert(isInMemory(file.number), `Expected ${directory} to be tmpfs; mount one there`);
    }
    using open = openFileStore(path, {
      readOnly: false,
      io: "auto",
      direct: false,
      lock: true,
      log() {},
    });
    const store = attachLocalStore(open.handle, {
      memory,
      io: undefined,
      done() {},
      flush() {},
    });
    await test({
      path,
      open,
      store,
      isMapped: () => open.describe().isMapped as boolean,
      allocated: () => open.describe().allocatedBytes as number,
      write(offset, bytes, value) {
        u8.fill(value, 0, bytes);
        return store.write(request(offset, bytes)) as number;
      },
      read(offset, bytes) {
        u8.fill(0xee, 0, bytes);
        const outcome = store.read(request(offset, bytes)) as number;
        if (outcome !== 0) throw new Error(`errno ${outcome}`);
        const [value] = u8;
        return u8.subarray(0, bytes).every((byte) => byte === value) ? value : -1;
      },
    });
  } finally {
    Deno.removeSync(path);
  }
}

/** Waits for a condition that a timer of the store brings about. */
async function until(is: () => boolean): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!is()) {
    assert(performance.now() < deadline, "Expected it within 30 s");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function run(program: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const text = new TextDecoder();
  assert(success, `${program} ${args.join(" ")}: ${text.decode(stderr)}`);
  return text.decode(stdout);
}

Deno.test("A mapped file holds writes by copies and by system calls", () =>
  withDisk(({ path, write, read, isMapped, open }) => {
    assert(isMapped());
    // Missing pages are first written by system calls.
    for (const value of [1, 2, 3]) {
      assertEquals(write(MIB - 512, 8192, value), 0);
      assertEquals(read(MIB - 512, 8192), value);
    }
    assertEquals(read(MIB - 1024, 512), 0);
    open[Symbol.dispose]();
    const content = Deno.readFileSync(path);
    assert(content.subarray(MIB - 512, MIB - 512 + 8192).every((byte) => byte === 3));
    assertEquals(content[MIB - 513], 0);
  }));

Deno.test("A mapped file allocates no memory for reads of holes", () =>
  withDisk(({ read, write, allocated }) => {
    assertEquals(read(0, 2 * MIB), 0);
    assertEquals(read(0, 2 * MIB), 0);
    assertEquals(allocated(), 0);
    assertEquals(write(4096, 4096, 7), 0);
    assertEquals(read(0, 4096), 0);
    assertEquals(allocated(), 4096);
  }));

Deno.test("A mapped file has its content from before it was opened", async () => {
  const path = Deno.makeTempFileSync({ dir: "/dev/shm", prefix: "vhostd-test-" });
  try {
    const content = new Uint8Array(2 * MIB);
    content.fill(5, 8192, MIB + 8192);
    await Deno.writeFile(path, content);
    using open = openFileStore(path, {
      readOnly: false,
      io: "auto",
      direct: false,
      lock: true,
      log() {},
    });
    const store = attachLocalStore(open.handle, {
      ...{ memory, io: undefined, done() {}, flush() {} },
    });
    for (let times = 0; times < 2; times++) {
      u8.fill(9);
      assertEquals(store.read(request(0, 2 * MIB)), 0);
      assertEquals(u8.subarray(0, 2 * MIB), content);
    }
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("A mapped file frees discarded space, which reads as zeroes and can be written again", () =>
  withDisk(({ store, read, write, allocated }) => {
    for (const discard of [true, false]) {
      assertEquals(write(0, MIB, 1), 0);
      assertEquals(write(0, MIB, 2), 0);
      const range = { ...request(0, 0), offset: 65536, bytes: 131072 };
      assertEquals(discard ? store.discard(range) : store.writeZeroes(range, true), 0);
      assertEquals(allocated(), MIB - 131072);
      assertEquals([read(65536, 131072), read(0, 65536), read(196608, 65536)], [0, 2, 2]);
      assertEquals(allocated(), MIB - 131072);
    }
    assertEquals(write(65536, 4096, 3), 0);
    assertEquals([read(65536, 4096), read(65536 + 4096, 4096)], [3, 0]);
  }));

Deno.test("A mapped file is complete when another process reads it, and is mapped again afterwards", () =>
  withDisk(async ({ path, write, read, isMapped }) => {
    assertEquals(write(0, 8192, 65), 0);
    assertEquals(write(0, 8192, 66), 0);
    assert(isMapped());
    const text = await run("head", "--bytes=4", path);
    assertEquals(text, "BBBB");
    await until(isMapped);
    assertEquals(write(4096, 4096, 67), 0);
    assertEquals([read(0, 4096), read(4096, 4096)], [66, 67]);
  }));

Deno.test("A mapped file uses system calls while another process has it open", () =>
  withDisk(async ({ path, write, read, isMapped }) => {
    assertEquals(write(0, 8192, 1), 0);
    const file = await Deno.open(path, { read: true, write: true });
    try {
      assertEquals(isMapped(), false);
      await file.write(new Uint8Array(4096).fill(2));
      assertEquals([read(0, 4096), read(4096, 4096)], [2, 1]);
      assertEquals(write(4096, 4096, 3), 0);
      await file.seek(4096, Deno.SeekMode.Start);
      const bytes = new Uint8Array(1);
      await file.read(bytes);
      assertEquals(bytes[0], 3);
    } finally {
      file.close();
    }
    await until(isMapped);
    assertEquals([read(0, 4096), read(4096, 4096)], [2, 3]);
  }));

Deno.test("A mapped file that is truncated fails requests, and not the process", () =>
  withDisk(async ({ path, write, read, store, isMapped }) => {
    assertEquals(write(0, 4 * MIB, 1), 0);
    assertEquals(write(0, 4 * MIB, 2), 0);
    await Deno.truncate(path, MIB);
    await until(isMapped);
    u8.fill(0);
    assertEquals(store.read(request(2 * MIB, 4096)), Errno.ENODATA);
    assertEquals(read(MIB - 4096, 4096), 2);
    // Extended again, the file has zeroes where it was cut.
    await Deno.truncate(path, 4 * MIB);
    await until(isMapped);
    assertEquals([read(2 * MIB, 4096), read(0, MIB)], [0, 2]);
    assertEquals(write(2 * MIB, 4096, 3), 0);
    assertEquals(read(2 * MIB, 4096), 3);
  }));

Deno.test("A mapped file that ends inside a page holds writes beyond its end", () =>
  withDisk(async ({ path, write, read, store, isMapped }) => {
    assertEquals(write(0, 4 * MIB, 1), 0);
    assertEquals(write(0, 4 * MIB, 2), 0);
    await Deno.truncate(path, MIB + 512);
    await until(isMapped);
    // The store knows that the file ends inside this page.
    assertEquals([read(MIB, 512), read(MIB - 4096, 4096)], [2, 2]);
    u8.fill(0);
    assertEquals(store.read(request(MIB + 512, 512)), Errno.ENODATA);
    for (const [offset, value] of [[512, 3], [2048, 4], [1024, 5]]) {
      assertEquals(write(MIB + offset, 512, value), 0);
      assertEquals(read(MIB + offset, 512), value);
    }
    // Opened by another thread: this one has to release the lease.
    const content = await Deno.readFile(path);
    const at = (offset: number) => content[MIB + offset];
    assertEquals([at(0), at(512), at(1024), at(2048)], [2, 3, 5, 4]);
  }));

Deno.test("A mapped file on a full tmpfs returns ENOSPC, and works where it has space", async () => {
  using small = smallTmpfs("1m"); // needs root, as in CI
  await withDisk(({ write, read, store }) => {
    assertEquals(write(0, MIB / 2, 1), 0);
    assertEquals(write(2 * MIB, MIB, 2), Errno.ENOSPC);
    assertEquals(write(0, MIB / 2, 3), 0);
    assertEquals(read(0, MIB / 2), 3);
    assertEquals(read(3 * MIB, 4096), 0);
    assertEquals(store.discard({ ...request(0, 0), offset: 2 * MIB, bytes: MIB }), 0);
    assertEquals(write(3 * MIB, MIB / 4, 4), 0);
    assertEquals([read(3 * MIB, MIB / 4), read(2 * MIB, 4096)], [4, 0]);
  }, { directory: small.path });
});

Deno.test("A mapped file survives threads that discard and write, truncation, and a full tmpfs", async () => {
  const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  using small = smallTmpfs("2m");
  await withDisk(async ({ open, path, isMapped }) => {
    const control = new SharedArrayBuffer(16), words = new Int32Array(control);
    const FULL = 3;
    const workers = [1, 2].map((nth) => {
      const worker = new Worker(new URL("./lib/mapped_store_worker.ts", import.meta.url), {
        type: "module",
      });
      const begun = Promise.withResolvers<void>();
      const outcome = new Promise<MappedOutcome>((resolve, reject) => {
        worker.onmessage = ({ data }: MessageEvent<MappedMessage>) =>
          data === "begins" ? begun.resolve() : resolve(data);
        worker.onerror = (event) => {
          event.preventDefault();
          reject(new Error(event.message));
        };
      });
      const order: MappedOrder = {
        ...{ handle: open.handle, bytes: 4 * MIB, seed: seed + nth, control },
        words: { requests: nth, full: FULL },
      };
      worker.postMessage(order);
      return { worker, begun: begun.promise, outcome };
    });
    const random = new Random(seed);
    const failed = Promise.race(workers.map(({ outcome }) => outcome));
    const script = async () => {
      await Promise.all(workers.map(({ begun }) => begun));
      // As long as it takes a busy machine to make so many requests
      const isDone = () => words[1] > 1000 && words[2] > 1000 && words[FULL] > 0;
      for (let round = 0; round < 4 || !isDone(); round++) {
        await until(isMapped);
        await Deno.truncate(path, random.below(4 * MIB));
        await Deno.truncate(path, 4 * MIB);
      }
    };
    try {
      await Promise.race([script(), failed]);
    } finally {
      Atomics.store(words, 0, 1);
      Atomics.notify(words, 0);
    }
    const outcomes = await Promise.all(workers.map(({ outcome }) => outcome));
    for (const { worker } of workers) worker.terminate();
    for (const counts of outcomes) {
      assert(counts[0] > 1000, JSON.stringify(outcomes));
      const known = [0, Errno.ENOSPC, Errno.ENODATA].map(String);
      assertEquals(Object.keys(counts).filter((code) => !known.includes(code)), []);
    }
    assert(outcomes.some((counts) => counts[Errno.ENOSPC] > 0), JSON.stringify(outcomes));
  }, { directory: small.path });
});

Deno.test("A read-only file on tmpfs is not mapped", () => {
  const path = Deno.makeTempFileSync({ dir: "/dev/shm", prefix: "vhostd-test-" });
  try {
    Deno.truncateSync(path, MIB);
    using open = openFileStore(path, {
      readOnly: true,
      io: "auto",
      direct: false,
      lock: true,
      log() {},
    });
    assertEquals("isMapped" in open.describe(), false);
  } finally {
    Deno.removeSync(path);
  }
});
