import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { FrontendError, SharedMemory, VirtioDriver } from "../../src/frontend/mod.ts";
import {
  createMemfd,
  drainEventfd,
  openFile,
  resizeFile,
  watchesEnded,
} from "../../src/linux/mod.ts";
import { sealOwn } from "../../src/linux/file/memory_file.ts";
import { libc } from "../../src/linux/libc.ts";
import {
  GuestMemory,
  type LostMemory,
  MemoryGuard,
  RegionError,
  viewMemory,
} from "../../src/memory/mod.ts";
import { serve } from "../../mod.ts";
import blk from "../../backends/blk/mod.ts";
import { smallTmpfs } from "./lib/block_devices.ts";
import echo from "./lib/echo_device.ts";
import { processState } from "../../tools/lib/process_state.ts";

// Started before the tests, the guard's listener does not count as their leak.
(await MemoryGuard.acquire())[Symbol.dispose]();

const MiB = 2 ** 20;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_WRITE = 8;

/** Forbids sealing a memfd, which makes it like a file on tmpfs. */
function makeUnsealable(fd: number): void {
  assert(libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) >= 0);
}

function isMemfd(fd: number): boolean {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`).startsWith("/memfd:");
  } catch {
    return false; // the descriptor of the listing itself
  }
}

const region = (guestAddress: number, size: number) => ({
  guestAddress: BigInt(guestAddress),
  size: BigInt(size),
  userAddress: 0x7000_0000_0000n + BigInt(guestAddress),
  mmapOffset: 0n,
});

Deno.test("A sealable memfd cannot shrink once it is guest memory", async () => {
  using memory = new GuestMemory();
  using fd = createMemfd("guest", MiB);
  await memory.prepare([fd.number]);
  memory.add(region(0, MiB), fd.number);
  assertThrows(() => resizeFile(fd.number, 0), Error, "EPERM");
  resizeFile(fd.number, 2 * MiB);
});

/** Every way in which JavaScript accesses memory: each compiles to different machine code. */
const touches: Record<string, (u8: Uint8Array<ArrayBuffer>) => unknown> = {
  "a load": (u8) => u8[5000],
  "a store": (u8) => u8[5000] = 1,
  "a DataView": (u8) => new DataView(u8.buffer, u8.byteOffset).getUint32(8192, true),
  "an atomic store": (u8) => Atomics.store(u8, 9000, 3),
  "a copy in": (u8) => u8.set(new Uint8Array(70_000), 4089),
  "a copy out": (u8) => u8.slice(0, 200_000),
  "a fill": (u8) => u8.fill(3),
  "a search": (u8) => u8.indexOf(77),
  "a text decoder": (u8) => new TextDecoder().decode(u8.subarray(0, 100)),
  "a random generator": (u8) => crypto.getRandomValues(u8.subarray(100, 60_000)),
};

Deno.test("Guest memory whose file shrank reads as zeros, however it is accessed", async () => {
  {
    using memory = new GuestMemory();
    const { u8 } = viewMemory(memory.handle);
    const ROUNDS = 30;
    let lost = 0;
    const told = Promise.withResolvers<void>();
    memory.onLost = ({ guestAddress, bytes }) => {
      assertEquals([guestAddress, bytes], [MiB, MiB]);
      if (++lost === ROUNDS * Object.keys(touches).length) told.resolve();
    };
    for (let round = 0; round < ROUNDS; round++) {
      for (const touch of Object.values(touches)) {
        using fd = createMemfd("guest", MiB);
        makeUnsealable(fd.number);
        await memory.prepare([fd.number]);
        memory.add(region(MiB, MiB), fd.number);
        const bytes = u8.subarray(MiB, 2 * MiB);
        bytes[0] = 7;
        const kept = round % 2 === 0 ? 0 : 4097;
        resizeFile(fd.number, kept);
        touch(bytes);
        // The rest of the file is intact.
        bytes[8191] = 9;
        assertEquals(bytes[8191], 9);
        memory.remove(region(MiB, MiB));
      }
    }
    await Promise.race([told.promise, new Promise((resolve) => setTimeout(resolve, 0))]);
  }
});

Deno.test("A file that shrinks only for a moment does not end the process", async () => {
  using memory = new GuestMemory();
  const { u8 } = viewMemory(memory.handle);
  using fd = createMemfd("guest", MiB);
  makeUnsealable(fd.number);
  await memory.prepare([fd.number]);
  memory.add(region(0, MiB), fd.number);
  const flip = new Worker(
    `data:text/javascript,${
      encodeURIComponent(`
        const { ftruncate } = Deno.dlopen("libc.so.6", {
          ftruncate: { parameters: ["i32", "i64"], result: "i32" },
        }).symbols;
        self.onmessage = ({ data }) => {
          const end = performance.now() + 300;
          while (performance.now() < end) { ftruncate(data, 0n); ftruncate(data, ${MiB}n); }
          self.postMessage("done");
        };
      `)
    }`,
    { type: "module" },
  );
  let done = false;
  const ended = new Promise<void>((resolve) => {
    flip.onmessage = () => {
      done = true;
      resolve();
    };
  });
  flip.postMessage(fd.number);
  while (!done) {
    for (let i = 0; i < MiB; i += 4096) u8[i] = 1;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await ended;
  flip.terminate();
});

for (const where of ["/tmp", "/dev/shm"]) {
  Deno.test(`A file in ${where} can be guest memory, and may shrink`, async () => {
    const path = Deno.makeTempFileSync({ dir: where });
    using file = openFile(path, { write: true });
    Deno.removeSync(path);
    resizeFile(file.number, MiB);
    using memory = new GuestMemory();
    const { u8 } = viewMemory(memory.handle);
    const lost = new Promise<LostMemory>((resolve) => memory.onLost = resolve);
    await memory.prepare([file.number]);
    memory.add(region(0, MiB), file.number);
    u8[MiB - 1] = 7;
    resizeFile(file.number, 4096);
    assertEquals(u8[MiB - 1], 0);
    assertEquals((await lost).bytes, MiB);
  });
}

Deno.test({
  name: "Guest memory without space on its file system is lost, and the process continues",
  ignore: Deno.uid() !== 0, // mounts a file system
  async fn() {
    using small = smallTmpfs("64k");
    Deno.writeFileSync(`${small.path}/memory`, new Uint8Array());
    using file = openFile(`${small.path}/memory`, { write: true });
    resizeFile(file.number, MiB);
    using memory = new GuestMemory();
    const { u8 } = viewMemory(memory.handle);
    const lost = new Promise<LostMemory>((resolve) => memory.onLost = resolve);
    await memory.prepare([file.number]);
    memory.add(region(0, MiB), file.number);
    u8.fill(7, 0, MiB);
    assertEquals((await lost).bytes, MiB);
    assertEquals(u8[MiB - 1], 7);
  },
});

Deno.test({
  name: "A page that cannot be allocated affects no other region",
  ignore: Deno.uid() !== 0, // mounts a file system
  async fn() {
    using small = smallTmpfs("8k");
    const sparse = Deno.makeTempFileSync({ dir: "/dev/shm" });
    Deno.writeFileSync(`${small.path}/memory`, new Uint8Array());
    using full = openFile(`${small.path}/memory`, { write: true });
    using empty = openFile(sparse, { write: true });
    Deno.removeSync(sparse);
    resizeFile(full.number, MiB);
    resizeFile(empty.number, 6144 * MiB);
    using memory = new GuestMemory();
    const { u8 } = viewMemory(memory.handle);
    const lost: LostMemory[] = [];
    const told = new Promise<void>((resolve) => {
      memory.onLost = (one) => {
        lost.push(one);
        resolve();
      };
    });
    await memory.prepare([full.number, empty.number]);
    memory.add(region(2 ** 33, 6144 * MiB), empty.number);
    memory.add(region(0, MiB), full.number);
    const blocks = () => Deno.statSync(`/proc/self/fd/${empty.number}`).blocks!;
    assertEquals(blocks(), 0, "looking at it takes nothing");
    u8.fill(7, 0, MiB);
    await told;
    assertEquals(lost.map(({ guestAddress }) => guestAddress), [0]);
    assert(blocks() <= 8, `${blocks()} blocks of 512 bytes`);
  },
});

Deno.test("Lost memory is no guest memory any more, and can be removed and added again", async () => {
  using memory = new GuestMemory();
  const { u8 } = viewMemory(memory.handle);
  using fd = createMemfd("guest", 64 * MiB);
  makeUnsealable(fd.number);
  using other = createMemfd("guest", MiB);
  await memory.prepare([fd.number, other.number]);
  memory.add(region(0, 64 * MiB), fd.number);
  memory.add(region(128 * MiB, MiB), other.number);
  const lost = new Promise<LostMemory>((resolve) => memory.onLost = resolve);
  resizeFile(fd.number, 0);
  u8[0] = 1;
  await lost;
  assertEquals(memory.regions.translate(0, 1), -1);
  assertEquals(memory.regions.translateUser(0x7000_0000_0000, 1), -1);
  assertEquals(memory.regions.translate(128 * MiB, 1), 128 * MiB);
  // Its replacement is unmapped too.
  u8.fill(7, 0, 64 * MiB);
  const taken = Deno.memoryUsage().rss;
  memory.dropLost();
  assert(taken - Deno.memoryUsage().rss > 32 * MiB);
  resizeFile(fd.number, 64 * MiB);
  assertThrows(() => memory.add(region(0, 64 * MiB), fd.number), RegionError, "apart");
  memory.remove(region(0, 64 * MiB));
  memory.add(region(0, 64 * MiB), fd.number);
  assertEquals([memory.regions.translate(0, 1), u8[0]], [0, 0]);
});

for (const plane of ["main", "thread"] as const) {
  Deno.test(`Rings do not start in lost memory, and start when it is added again (${plane})`, async () => {
    const directory = Deno.makeTempDirSync();
    {
      const options = { queues: 2 };
      await using server = await serve(echo, { socketPath: `${directory}/a`, plane, options });
      using memory = new SharedMemory([{ bytes: MiB }, { bytes: MiB }]);
      const [, shrinking] = memory.regions;
      makeUnsealable(shrinking.fd.number);
      await using driver = await VirtioDriver.start(`${directory}/a`, { memory, queues: [16, 16] });
      const { connection } = driver;
      const [kick, otherKick] = driver.queues.map(({ handle }) => handle.kickFd);
      // A ring that this test does not use.
      const at = shrinking.message.userAddress;
      await connection.getVringBase(1);
      await connection.setVringBase(1, 0);
      await connection.setVringAddr({
        ...{ index: 1, flags: 0, log: 0n },
        ...{ descriptor: at, available: at + 4096n, used: at + 8192n },
      });
      await connection.setVringKick(1, otherKick);
      const running = () => server.record().queues.slice(0, 2).map(({ running }) => running);
      assertEquals(running(), [true, true]);
      resizeFile(shrinking.fd.number, 0);
      driver.queues[1].kick();
      while (running().some((is) => is)) {
        driver.queues[1].kick();
        await connection.getFeatures();
      }
      assertEquals(server.record().queues[0].faults.at(-1)!.rule, "memory");
      await assertRejects(() => connection.setVringKick(1, otherKick), FrontendError, "error");
      assertEquals(running(), [false, false]);
      // The next start does not report the old break.
      drainEventfd(driver.queues[0].handle.errFd);
      await connection.setVringKick(0, kick);
      assertEquals(running(), [true, false]);
      assertEquals((await driver.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], 5);
      resizeFile(shrinking.fd.number, MiB);
      await connection.remMemReg(shrinking);
      await connection.addMemReg(shrinking);
      assertEquals(running(), [true, true]);
      assertEquals((await driver.request(0, [Uint8Array.of(0, 6)], [2])).data[0][1], 6);
    }
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  });
}

Deno.test("A file whose pages another process supplies is refused as guest memory", () => {
  using memory = new GuestMemory();
  using file = openFile("/proc/self/environ");
  assertThrows(() => memory.add(region(0, 4096), file.number), RegionError, "another process");
});

for (const plane of ["main", "thread"] as const) {
  Deno.test(`Memory that shrinks under a running ring breaks only this device's queues (${plane})`, async () => {
    const directory = Deno.makeTempDirSync();
    {
      await using server = await serve(echo, { socketPath: `${directory}/a`, plane });
      await using other = await serve(echo, { socketPath: `${directory}/b`, plane });
      await using bystander = await VirtioDriver.start(`${directory}/b`);
      using memory = new SharedMemory(MiB);
      const shrinking = memory.addRegion({ bytes: MiB });
      makeUnsealable(shrinking.fd.number);
      const driver = await VirtioDriver.start(`${directory}/a`, { memory });
      const readable = memory.alloc(16, 16, shrinking);
      const writable = memory.alloc(64, 64, memory.regions[0]);
      resizeFile(shrinking.fd.number, 0);
      const [queue] = driver.queues;
      queue.add([{ gpa: readable, bytes: 16 }], [{ gpa: writable, bytes: 64 }]);
      queue.publish();
      queue.kick();
      while (server.record().queues[0].faults.length === 0) {
        await driver.connection.getFeatures();
        await bystander.request(0, [Uint8Array.of(0, 1)], [2]);
      }
      const [{ rule, message }] = server.record().queues[0].faults;
      assertEquals(rule, "memory");
      assert(message.includes("0x100100000+0x100000"), message);
      assertEquals(server.record().errors.latest.at(-1)!.rule, "memory");
      memory.free(readable);
      memory.free(writable);
      await driver.close();
      await using next = await VirtioDriver.start(`${directory}/a`);
      assertEquals((await next.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], 5);
      assertEquals((await bystander.request(0, [Uint8Array.of(0, 6)], [2])).data[0][1], 6);
      assertEquals(other.record().errors.total, 0);
    }
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  });
}

for (const io of ["sync", "uring"]) {
  Deno.test(`A disk returns an error when a system call accesses lost memory (${io})`, async () => {
    const directory = Deno.makeTempDirSync();
    const file = `${directory}/disk`;
    Deno.writeFileSync(file, new Uint8Array(MiB).fill(0xab));
    {
      await using _server = await serve(blk, {
        socketPath: `${directory}/s`,
        options: { blkFile: file, io },
      });
      using memory = new SharedMemory(MiB);
      const shrinking = memory.addRegion({ bytes: MiB });
      makeUnsealable(shrinking.fd.number);
      await using driver = await VirtioDriver.start(`${directory}/s`, { memory });
      const header = memory.alloc(16, 16, memory.regions[0]);
      const status = memory.alloc(16, 16, memory.regions[0]);
      const data = memory.alloc(4096, 4096, shrinking);
      memory.at(header, 16).fill(0); // VIRTIO_BLK_T_IN, sector 0
      memory.at(status, 1)[0] = 99;
      resizeFile(shrinking.fd.number, 0);
      const [queue] = driver.queues;
      queue.add(
        [{ gpa: header, bytes: 16 }],
        [{ gpa: data, bytes: 4096 }, { gpa: status, bytes: 1 }],
      );
      queue.publish();
      queue.kick();
      while (queue.poll() < 0) await driver.connection.getFeatures();
      assertEquals(memory.at(status, 1)[0], 1, "VIRTIO_BLK_S_IOERR");
      for (const gpa of [header, status, data]) memory.free(gpa);
    }
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  });
}

Deno.test("A guard leaves no descriptor, mapping or handler behind", async () => {
  const round = async () => {
    using memory = new GuestMemory();
    using fd = createMemfd("guest", MiB);
    makeUnsealable(fd.number);
    await memory.prepare([fd.number]);
    memory.add(region(0, MiB), fd.number);
  };
  const handler = () => {
    const action = new Uint8Array(256);
    libc.sigaction(7, null, action);
    return action.slice(0, 8);
  };
  // The worker's own descriptors close when its thread ends, for which there is no event.
  const memfds = () =>
    [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => isMemfd(Number(name))).length;
  const before = [memfds(), processState().mappings, handler()];
  for (let i = 0; i < 5; i++) await round();
  assertEquals([memfds(), processState().mappings, handler()], before);
});

/** A program that guards guest memory and then touches other memory whose file is gone. */
const foreignFault = `
  import { createMemfd, Mapping, resizeFile } from "${
  import.meta.resolve("../../src/linux/mod.ts")
}";
  import { libc } from "${import.meta.resolve("../../src/linux/libc.ts")}";
  import { GuestMemory } from "${import.meta.resolve("../../src/memory/mod.ts")}";
  const memory = new GuestMemory();
  const [fd, other] = [createMemfd("guest", ${MiB}), createMemfd("other", ${MiB})];
  libc.fcntl(fd.number, ${F_ADD_SEALS}, ${F_SEAL_SEAL});
  await memory.prepare([fd.number]);
  memory.add({ guestAddress: 0n, size: ${MiB}n, userAddress: 0n, mmapOffset: 0n }, fd.number);
  const mapping = new Mapping(other.number, ${MiB});
  resizeFile(other.number, 0);
  console.log("touching");
  console.log(new Uint8Array(mapping.buffer)[0]);
`;

Deno.test("A SIGBUS outside of guest memory ends the process as usual", async () => {
  const { signal, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", foreignFault],
    stderr: "null",
  }).output();
  assertEquals([signal, new TextDecoder().decode(stdout)], ["SIGBUS", "touching\n"]);
});

Deno.test("GuestMemory keeps its regions when another one cannot be mapped", () => {
  using memory = new GuestMemory();
  using fd = createMemfd("guest", MiB);
  using wide = createMemfd("guest", MiB);
  libc.fcntl(wide.number, F_ADD_SEALS, F_SEAL_WRITE);
  sealOwn(fd.number);
  sealOwn(wide.number);
  memory.add(region(0, MiB), fd.number);
  assertThrows(
    () => memory.replace([region(0, MiB), region(MiB, MiB)], [fd.number, wide.number]),
    Error,
    "mmap",
  );
  assertEquals(memory.regions.translate(0, 1), 0, "what was there is there still");
});

Deno.test("SET_MEM_TABLE with a region that cannot be mapped names it, and changes nothing", async () => {
  const directory = Deno.makeTempDirSync();
  {
    await using server = await serve(echo, { socketPath: `${directory}/a`, plane: "main" });
    await using driver = await VirtioDriver.start(`${directory}/a`, { useMemSlots: false });
    using memory = new SharedMemory([{ bytes: MiB }, { bytes: MiB }]);
    using sealed = createMemfd("sealed", MiB);
    libc.fcntl(sealed.number, F_ADD_SEALS, F_SEAL_WRITE);
    const regions = memory.regions.map(({ message }) => message);
    const error = await assertRejects(
      () =>
        driver.connection.tell(
          { request: "SET_MEM_TABLE", regions },
          [memory.regions[0].fd.number, sealed.number],
        ),
      FrontendError,
    );
    assertEquals(error.reason, "refused");
    assertEquals((await driver.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], 5);
    assert(server.record().errors.latest.at(-1)!.message.includes("mmap"));
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("a guard of another version does not start", async () => {
  const directory = Deno.makeTempDirSync();
  for (const folder of ["linux/", "linux/file/", "linux/wait/", "memory/", "memory/guard/"]) {
    const source = new URL(`../../src/${folder}`, import.meta.url);
    Deno.mkdirSync(`${directory}/${folder}`);
    for (const { name, isFile } of Deno.readDirSync(source)) {
      if (isFile) Deno.copyFileSync(new URL(name, source), `${directory}/${folder}${name}`);
    }
  }
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-all", "--no-config", "--ext=ts", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(`
    const { MemoryGuard } = await import("file://${directory}/memory/guard/memory_fault.ts");
    (await MemoryGuard.acquire())[Symbol.dispose]();
    console.log("started");
    // Modification times differ by whole seconds.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    Deno.utimeSync("${directory}/memory/guard/guard_table.ts", 1, 1);
    await MemoryGuard.acquire().catch((error) => console.log(error.message));
    Deno.exit(0);
  `));
  await writer.close();
  const lines = new TextDecoder().decode((await child.output()).stdout).split("\n");
  assertEquals(lines[0], "started");
  assertStringIncludes(lines[1], "Expected the guard_table.ts that this process was started with");
  Deno.removeSync(directory, { recursive: true });
});
