/** The waits of queue threads, by epoll and by io_uring. */
import { assertEquals } from "@std/assert";
import {
  createEventfd,
  drainEventfd,
  type Fd,
  Reactor,
  signalEventfd,
  type ThreadReactor,
  UnixConnection,
  UringReactor,
} from "../../src/linux/mod.ts";
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

/** Takes everything that is ready now, without waiting. */
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

  Deno.test(`${name}.watch() tells when a full socket is writable again`, () => {
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

  Deno.test(`${name}: a watch that is disposed of calls no more, paused or not`, () => {
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

  Deno.test(`${name}: what a timer resumes while the thread waits is watched`, async () => {
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
