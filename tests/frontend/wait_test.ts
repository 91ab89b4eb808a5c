/** Waiting on queue threads, by epoll and by io_uring. */
import { assertEquals } from "@std/assert";
import {
  addressOf,
  createEventfd,
  createMemfd,
  CURRENT_POSITION,
  drainEventfd,
  Errno,
  Fd,
  IORING_CQE_F_MORE,
  IoVectors,
  pinnedBuffer,
  readVectors,
  signalEventfd,
  UnixConnection,
  UnixListener,
  writeVectors,
} from "../../src/linux/mod.ts";
import { Reactor, type ThreadReactor } from "../../src/linux/wait/reactor.ts";
import { UringReactor } from "../../src/linux/wait/uring_reactor.ts";
import { libc } from "../../src/linux/libc.ts";

const reactors: readonly [string, () => ThreadReactor][] = [
  ["Reactor", () => new Reactor()],
  ["UringReactor", () => new UringReactor()],
];

/** Two connected sockets. */
function socketPair(): DisposableStack & { near: Fd; far: Fd } {
  const stack = new DisposableStack();
  const [near, far] = UnixConnection.pair().map((end) => stack.use(end).fd);
  return Object.assign(stack, { near, far });
}

const bytes = new Uint8Array(4096);

/** Handles everything that is ready now, without waiting. */
function turnOnce(reactor: ThreadReactor): void {
  for (let i = 0; i < 2; i++) {
    reactor.defer(() => {});
    reactor.turn();
  }
}

for (const [name, create] of reactors) {
  Deno.test(`${name}.watch() calls for as long as a descriptor is readable`, () => {
    using reactor = create();
    using pair = socketPair();
    const { near, far } = pair;
    let calls = 0;
    using _watch = reactor.watch(near.number, "readable", () => {
      if (++calls === 3) libc.read(near.number, bytes, 1);
    });
    turnOnce(reactor);
    assertEquals(calls, 0);
    libc.write(far.number, bytes, 1);
    while (calls < 3) reactor.turn();
    turnOnce(reactor);
    assertEquals(calls, 3);
  });

  Deno.test(`${name}.watch() calls when a full socket is writable again`, () => {
    using reactor = create();
    using pair = socketPair();
    const { near, far } = pair;
    let calls = 0;
    using watch = reactor.watch(near.number, "writable", () => {
      calls++;
      watch.pause();
    });
    reactor.turn();
    assertEquals(calls, 1);
    while (libc.write(near.number, bytes, bytes.length) > 0);
    watch.resume();
    turnOnce(reactor);
    assertEquals(calls, 1);
    while (libc.read(far.number, bytes, bytes.length) > 0);
    reactor.turn();
    assertEquals(calls, 2);
  });

  Deno.test(`${name}: a paused watch calls nothing until it is resumed`, () => {
    using reactor = create();
    using pair = socketPair();
    const { near, far } = pair;
    let calls = 0;
    using watch = reactor.watch(near.number, "readable", () => {
      calls++;
      watch.pause();
    });
    watch.pause();
    watch.pause();
    libc.write(far.number, bytes, 1);
    turnOnce(reactor);
    assertEquals(calls, 0);
    for (let round = 1; round <= 3; round++) {
      watch.resume();
      watch.resume();
      while (calls < round) reactor.turn();
      turnOnce(reactor);
      assertEquals(calls, round);
    }
    watch.resume();
    watch.pause();
    turnOnce(reactor);
    assertEquals(calls, 3);
  });

  Deno.test(`${name}.watch() takes one descriptor for both directions`, () => {
    using reactor = create();
    using pair = socketPair();
    const { near, far } = pair;
    const calls: string[] = [];
    using reads = reactor.watch(near.number, "readable", () => {
      calls.push("readable");
      reads.pause();
    });
    using writes = reactor.watch(near.number, "writable", () => {
      calls.push("writable");
      writes.pause();
    });
    turnOnce(reactor);
    assertEquals(calls, ["writable"]);
    libc.write(far.number, bytes, 1);
    turnOnce(reactor);
    assertEquals(calls, ["writable", "readable"]);
  });

  Deno.test(`${name}: a disposed watch makes no calls, paused or not`, () => {
    using reactor = create();
    using pair = socketPair();
    const { near, far } = pair;
    let calls = 0;
    const watches = [0, 1, 2].map(() => reactor.watch(near.number, "readable", () => calls++));
    watches[1].pause();
    libc.write(far.number, bytes, 1);
    for (const watch of watches) watch[Symbol.dispose]();
    watches[1].resume();
    turnOnce(reactor);
    assertEquals(calls, 0);
  });

  Deno.test(`${name}.watchSignals() calls once for each signal, and reads nothing`, () => {
    using reactor = create();
    using eventfd = createEventfd();
    let calls = 0;
    using _watch = reactor.watchSignals(eventfd.number, () => calls++);
    turnOnce(reactor);
    for (let round = 1; round <= 3; round++) {
      signalEventfd(eventfd.number);
      turnOnce(reactor);
      assertEquals(calls, round);
    }
    assertEquals(drainEventfd(eventfd.number), true);
  });

  Deno.test(`${name}: a watch that a timer resumes while the thread waits is active`, async () => {
    using reactor = create();
    using pair = socketPair();
    const { near, far } = pair;
    const called = Promise.withResolvers<void>();
    using watch = reactor.watch(near.number, "readable", () => {
      libc.read(near.number, bytes, 1);
      called.resolve();
    });
    watch.pause();
    libc.write(far.number, bytes, 1);
    turnOnce(reactor);
    const turned = reactor.turnAsync();
    queueMicrotask(() => watch.resume());
    await turned;
    turnOnce(reactor);
    await called.promise;
  });
}

/** A separate memory for operations. */
function memory(): { bytes: Uint8Array; at: number } {
  const buffer = pinnedBuffer(4096);
  return { bytes: new Uint8Array(buffer), at: addressOf(buffer) };
}

/** A user of a reactor's ring, and what completed for it: number, result, whether more follows. */
function recordCompletions(reactor: UringReactor) {
  const completed: [number, number, boolean][] = [];
  let batches = 0;
  const user = reactor.serve({
    completed(operation, result, flags) {
      completed.push([operation, result, (flags & IORING_CQE_F_MORE) !== 0]);
    },
    batchEnded: () => batches++,
  });
  const until = (count: number) => {
    while (completed.length < count) reactor.turn();
    return completed;
  };
  return { user, completed, until, batches: () => batches };
}

Deno.test("IoUring sends and receives on sockets", () => {
  using reactor = new UringReactor();
  using pair = socketPair();
  const { near, far } = pair;
  const { ring } = reactor;
  const { user, until } = recordCompletions(reactor);
  const from = memory(), into = memory();
  from.bytes.set([1, 2, 3, 4]);
  ring.receive(far.number, into.at, 100, 0, user.data(7));
  ring.send(near.number, from.at, 4, 0, user.data(65_535));
  const completed = until(2).toSorted(([a], [b]) => a - b);
  assertEquals(completed, [[7, 4, false], [65_535, 4, false]]);
  assertEquals([...into.bytes.subarray(0, 5)], [1, 2, 3, 4, 0]);
});

Deno.test("IoUring reads and writes streams at the current position, in vectors too", () => {
  using reactor = new UringReactor();
  using pair = socketPair();
  const { near, far } = pair;
  const { ring } = reactor;
  const { user, until } = recordCompletions(reactor);
  const from = memory(), into = memory();
  from.bytes.set([1, 2, 3, 4, 5, 6]);
  const writes = new IoVectors(), reads = new IoVectors();
  writes.push(from.at + 3, 3);
  writes.push(from.at, 3);
  reads.push(into.at, 1);
  reads.push(into.at + 10, 5);
  ring.writeVectors(near.number, writes.address, 2, CURRENT_POSITION, user.data(0));
  until(1);
  ring.readVectors(far.number, reads.address, 2, CURRENT_POSITION, user.data(1));
  until(2);
  ring.write(near.number, from.at, 2, CURRENT_POSITION, user.data(2));
  until(3);
  ring.read(far.number, into.at + 20, 2, CURRENT_POSITION, user.data(3));
  assertEquals(until(4), [[0, 6, false], [1, 6, false], [2, 2, false], [3, 2, false]]);
  assertEquals([into.bytes[0], ...into.bytes.subarray(10, 15)], [4, 5, 6, 1, 2, 3]);
  assertEquals([...into.bytes.subarray(20, 22)], [1, 2]);
  assertEquals(writeVectors(near.number, writes, CURRENT_POSITION), 6);
  assertEquals(readVectors(far.number, reads, CURRENT_POSITION), 6);
});

Deno.test("a file keeps its position when it is read at offsets, and moves it without one", () => {
  using reactor = new UringReactor();
  using file = createMemfd("test", 4096);
  const { ring } = reactor;
  const { user, completed, until } = recordCompletions(reactor);
  const into = memory();
  const [registered] = ring.registerFiles([file.number]);
  for (const [i, stands] of [file.number, registered].entries()) {
    ring.read(stands, into.at, 3000, CURRENT_POSITION, user.data(i));
    ring.read(stands, into.at, 3000, 2 ** 32, user.data(i + 10));
    ring.read(stands, into.at, 3000, 4000, user.data(i + 20));
    until(3);
    assertEquals(completed.splice(0).toSorted(([a], [b]) => a - b).map(([, result]) => result), [
      i === 0 ? 3000 : 1096,
      0,
      96,
    ]);
  }
  ring.unregisterFiles();
});

Deno.test("IoUring accepts one connection after the other", () => {
  using stack = new DisposableStack();
  const folder = stack.adopt(Deno.makeTempDirSync(), (path) => Deno.removeSync(path));
  const path = `${folder}/socket`;
  using reactor = new UringReactor();
  using listener = UnixListener.listen(path);
  const { user, completed, until } = recordCompletions(reactor);
  reactor.ring.accept(listener.fd.number, user.data(1), true);
  for (let i = 1; i <= 3; i++) {
    using _connection = UnixConnection.connect(path);
    const [, result, isMultishot] = until(i)[i - 1];
    using accepted = new Fd(result);
    assertEquals([accepted.isOpen, isMultishot], [true, true]);
  }
  user.cancel(1);
  assertEquals(until(4)[3], [1, -Errno.ECANCELED, false]);
  assertEquals(completed.length, 4);
});

Deno.test("IoUser.cancel() cancels its own operation and no other user's", () => {
  using reactor = new UringReactor();
  using pair = socketPair();
  const { near, far } = pair;
  const [first, second] = [recordCompletions(reactor), recordCompletions(reactor)];
  const into = memory();
  for (const { user } of [first, second]) {
    reactor.ring.receive(far.number, into.at, 10, 0, user.data(5));
  }
  first.user.cancel(5);
  first.user.cancel(6);
  assertEquals(first.until(1), [[5, -Errno.ECANCELED, false]]);
  assertEquals([second.completed, first.batches(), second.batches()], [[], 1, 0]);
  libc.write(near.number, bytes, 10);
  assertEquals(second.until(1), [[5, 10, false]]);
  assertEquals([first.batches(), second.batches()], [1, 1]);
});

Deno.test("UringReactor.cancelOperations() cancels the operations of all users, and no watch", () => {
  using reactor = new UringReactor();
  using pair = socketPair();
  const { near, far } = pair;
  const users = [recordCompletions(reactor), recordCompletions(reactor)];
  const into = memory();
  let calls = 0;
  using _watch = reactor.watch(near.number, "readable", () => {
    libc.read(near.number, bytes, 1);
    calls++;
  });
  for (const { user } of users) {
    for (let i = 0; i < 3; i++) {
      reactor.ring.receive(far.number, into.at, 10, 0, user.data(i));
    }
  }
  reactor.cancelOperations();
  for (const { until } of users) {
    assertEquals(
      until(3).toSorted(([a], [b]) => a - b),
      [0, 1, 2].map((i) => [i, -Errno.ECANCELED, false]),
    );
  }
  libc.write(far.number, bytes, 1);
  while (calls === 0) reactor.turn();
});

Deno.test("IoUring: an operation that a timer prepares while the thread waits is submitted", async () => {
  using reactor = new UringReactor();
  using pair = socketPair();
  const { near, far } = pair;
  const { user, completed } = recordCompletions(reactor);
  const into = memory();
  libc.write(near.number, bytes, 10);
  const turned = reactor.turnAsync();
  queueMicrotask(() => reactor.ring.receive(far.number, into.at, 10, 0, user.data(0)));
  await turned;
  while (completed.length === 0) await reactor.turnAsync();
  assertEquals(completed, [[0, 10, false]]);
});
