import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { startsWith } from "@std/bytes";
import {
  closeAll,
  countSignals,
  createEventfd,
  createFile,
  createMemfd,
  createTimerfd,
  drainEventfd,
  Fd,
  fileBytes,
  fileKind,
  inspectSocket,
  IoVectors,
  LinuxError,
  lockShared,
  MAX_SOCKET_PATH_BYTES,
  openFile,
  punchHole,
  readVectors,
  ready,
  setNonblocking,
  signalEventfd,
  UnixConnection,
  UnixListener,
  watchesEnded,
  writeVectors,
} from "../../src/linux/mod.ts";
import { keepNewFiles, noteNewFiles, removeNewFiles } from "../../src/linux/file/new_files.ts";
import { replaceFile } from "../../src/linux/file/path.ts";
import { Signaller } from "../../src/linux/wait/signaller.ts";
import { addressOf, libc, pinnedBuffer } from "../../src/linux/libc.ts";
import { processState } from "../../tools/lib/process_state.ts";

Deno.test("LinuxError names the call, the error and the subject", () => {
  const error = assertThrows(() => openFile("/no/such/file"), LinuxError);
  assertEquals([error.syscall, error.code, error.errno], ["open", "ENOENT", 2]);
  assertEquals(error.message, "open: No such file or directory (ENOENT): /no/such/file");
});

Deno.test("Fd closes once, and never a released descriptor", () => {
  using fd = createEventfd();
  const copy = fd.duplicate();
  const number = copy.release();
  copy.close();
  assertEquals(fileKind(number), "other");
  new Fd(number).close();
  assertThrows(() => copy.number, TypeError);
});

Deno.test("UnixConnection carries bytes and descriptors both ways", async () => {
  const before = processState();
  {
    const [a, b] = UnixConnection.pair();
    using memfd = createMemfd("test", 12345);
    using eventfd = createEventfd();
    const into = new Uint8Array(5);
    for (const [from, to] of [[a, b], [b, a]]) {
      const receiving = to.receive(into);
      await from.send(Uint8Array.of(1, 2), [memfd.number, eventfd.number]);
      await from.send(Uint8Array.of(3, 4, 5));
      const { bytes, fds } = await receiving;
      assertEquals([bytes, fds.length, [...into]], [5, 2, [1, 2, 3, 4, 5]]);
      assertEquals(fileBytes(fds[0].number), 12345);
      closeAll(fds);
    }
    await a.close();
    await b.close();
  }
  await watchesEnded();
  assertEquals(processState().fds, before.fds + firstUse());
});

/** The main thread's reactor opens two descriptors on first use. */
let used = false;
function firstUse(): number {
  const count = used ? 0 : 2;
  used = true;
  return count;
}

Deno.test("UnixConnection carries more than a socket buffer holds", async () => {
  const [a, b] = UnixConnection.pair();
  const sent = Uint8Array.from({ length: 3_000_000 }, (_, i) => i * 31);
  const into = new Uint8Array(sent.length);
  const receiving = b.receive(into);
  await a.send(sent);
  assertEquals((await receiving).bytes, sent.length);
  assert(startsWith(into, sent));
  await a.close();
  await b.close();
  await watchesEnded();
});

Deno.test("UnixConnection.receive() reports the end of the stream, also in the middle of a message", async () => {
  const [a, b] = UnixConnection.pair();
  await a.send(Uint8Array.of(1, 2, 3));
  await a.close();
  assertEquals((await b.receive(new Uint8Array(5))).bytes, 3);
  assertEquals((await b.receive(new Uint8Array(5))).bytes, 0);
  await b.close();
  await watchesEnded();
});

Deno.test("UnixConnection.send() to a closed peer throws, without a signal", async () => {
  const [a, b] = UnixConnection.pair();
  await b.close();
  const error = await assertRejects(() => a.send(Uint8Array.of(1)), LinuxError);
  assertEquals(error.code, "EPIPE");
  await a.close();
  await watchesEnded();
});

Deno.test("UnixConnection.close() ends a pending receive", async () => {
  const [a, b] = UnixConnection.pair();
  const receiving = b.receive(new Uint8Array(1));
  await b.close();
  assertEquals((await receiving).bytes, 0);
  await a.close();
  await watchesEnded();
});

Deno.test("UnixConnection leaks nothing when the process has no free descriptor", async () => {
  // In its own process, which has a low limit of descriptors.
  const script = `
    import { closeAll, createEventfd, LinuxError, UnixConnection } from ${
    JSON.stringify(new URL("../../src/linux/mod.ts", import.meta.url).href)
  };
    const count = () => [...Deno.readDirSync("/proc/self/fd")].length;
    const [a, b] = UnixConnection.pair();
    const first = createEventfd();
    await a.send(new Uint8Array(4), Array(60).fill(first.number));
    const before = count();
    const first4 = await b.receive(new Uint8Array(4));
    const came = first4.fds.length;
    for (const fd of first4.fds) fd.close();
    console.log(first4.bytes, first4.fdsLost, came > 0 && came < 60, count() - before);
    await a.send(new Uint8Array(4), [first.number]);
    const { bytes, fds } = await b.receive(new Uint8Array(4));
    console.log(bytes, fds.length);
    Deno.exit(0);`;
  const child = new Deno.Command("sh", {
    args: ["-c", 'ulimit -n 64; exec "$0" run --quiet --allow-all --ext=ts -', Deno.execPath()],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(script));
  await writer.close();
  const { stdout, stderr } = await child.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(out.trim().split("\n"), ["4 true true 0", "4 1"], err);
});

Deno.test("UnixListener accepts, and stops", async () => {
  const directory = Deno.makeTempDirSync();
  const path = `${directory}/socket`;
  const listener = UnixListener.listen(path);
  assertEquals(inspectSocket(listener.fd.number), "listening");
  const client = UnixConnection.connect(path);
  const server = (await listener.accept())!;
  assertEquals(inspectSocket(client.fd.number), "connected");
  assertEquals(client.peerPid(), Deno.pid);
  const waiting = listener.accept();
  listener.stop();
  assertEquals(await waiting, undefined);
  await client.close();
  await server.close();
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("UnixListener and UnixConnection refuse paths that are too long or missing", () => {
  const long = `/tmp/${"x".repeat(MAX_SOCKET_PATH_BYTES)}`;
  assertThrows(() => UnixListener.listen(long), RangeError, "107 bytes");
  assertThrows(() => UnixConnection.connect(""), RangeError);
  assertEquals(assertThrows(() => UnixConnection.connect("/no/such"), LinuxError).code, "ENOENT");
  assertEquals(assertThrows(() => UnixListener.listen("/no/such/x"), LinuxError).code, "ENOENT");
});

Deno.test("inspectSocket() refuses anything but a Unix stream socket", () => {
  using eventfd = createEventfd();
  assertEquals(assertThrows(() => inspectSocket(eventfd.number), LinuxError).code, "ENOTSOCK");
});

Deno.test("signalEventfd() wakes, also when the counter is full", async () => {
  using eventfd = createEventfd();
  assertEquals(drainEventfd(eventfd.number), false);
  const waiting = ready(eventfd.number);
  assertEquals(signalEventfd(eventfd.number), true);
  await waiting;
  assertEquals(drainEventfd(eventfd.number), true);
  const full = new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer);
  assertEquals(libc.write(eventfd.number, full, 8), 8);
  assertEquals(signalEventfd(eventfd.number), true);
  await watchesEnded();
});

Deno.test("a Signaller signals repeatedly, and does not block when the counter is full", () => {
  using signaller = new Signaller();
  using eventfd = createEventfd();
  using other = createEventfd();
  for (let i = 0; i < 1000; i++) {
    signaller.signal(eventfd.number);
    if (i % 3 === 0) signaller.signal(other.number);
  }
  assertEquals([countSignals(eventfd.number), countSignals(other.number)], [1000, 334]);
  const full = new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer);
  assertEquals(libc.write(eventfd.number, full, 8), 8);
  setNonblocking(eventfd.number, false);
  for (let i = 0; i < 3; i++) signaller.signal(eventfd.number);
  assertEquals(drainEventfd(eventfd.number), true);
});

Deno.test("createTimerfd() is ready periodically", async () => {
  using timer = createTimerfd(1);
  for (let i = 0; i < 3; i++) {
    await ready(timer.number);
    assertEquals(drainEventfd(timer.number), true);
  }
  await watchesEnded();
});

Deno.test("readVectors() and writeVectors() move scattered memory, and neighbours are merged", () => {
  using file = createMemfd("test", 0);
  const memory = new Uint8Array(pinnedBuffer(4096)).map((_, i) => i);
  const at = addressOf(memory);
  const vectors = new IoVectors();
  vectors.push(at + 100, 10);
  vectors.push(at + 110, 5);
  vectors.push(at + 7, 3);
  assertEquals(vectors.count, 2);
  assertEquals(writeVectors(file.number, vectors, 1000), 18);
  assertEquals(fileBytes(file.number), 1018);
  const back = new IoVectors();
  back.push(at + 2000, 100);
  assertEquals(readVectors(file.number, back, 1000), 18);
  assertEquals([...memory.subarray(2000, 2018)], [
    ...memory.subarray(100, 115),
    ...memory.subarray(7, 10),
  ]);
});

Deno.test("punchHole() frees space and leaves zeroes", () => {
  using file = createMemfd("test", 65536);
  const memory = new Uint8Array(pinnedBuffer(65536)).fill(1);
  const vectors = new IoVectors();
  vectors.push(addressOf(memory), 65536);
  writeVectors(file.number, vectors, 0);
  assertEquals(punchHole(file.number, 4096, 8192), 0);
  assertEquals(readVectors(file.number, vectors, 0), 65536);
  assertEquals(memory.reduce((sum, byte) => sum + byte, 0), 65536 - 8192);
  assertEquals(fileBytes(file.number), 65536);
});

Deno.test("removeNewFiles() leaves files that were there, that others lock or that took their place", () => {
  const directory = Deno.makeTempDirSync();
  const path = (name: string) => `${directory}/${name}`;
  replaceFile(path("earlier"), "earlier");
  noteNewFiles();
  replaceFile(path("earlier"), "later");
  for (const name of ["gone", "locked", "replaced", "new"]) createFile(path(name), () => {});
  Deno.removeSync(path("gone"));
  replaceFile(path("replaced"), "by another");
  {
    using other = openFile(path("locked"));
    lockShared(other.number, 100, 1);
    removeNewFiles();
  }
  const left = [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
  assertEquals(left, ["earlier", "locked", "replaced"]);
  noteNewFiles();
  replaceFile(path("kept"), "");
  keepNewFiles();
  removeNewFiles();
  assertEquals(Deno.readTextFileSync(path("kept")), "");
  Deno.removeSync(directory, { recursive: true });
});
