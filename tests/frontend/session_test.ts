import {
  assert,
  assertEquals,
  assertGreater,
  assertLessOrEqual,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  FrontendConnection,
  FrontendError,
  type FrontendMessage,
  frontendMessages,
  packedDescriptorFlags,
  SharedMemory,
  UnixConnection,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../src/frontend/mod.ts";
import { closeAll, createEventfd, createMemfd, watchesEnded } from "../../src/linux/mod.ts";
import {
  type DeviceServer,
  EndpointError,
  serve,
  type ServeOptions,
  transportMask,
} from "../../mod.ts";
import rng from "../../backends/rng/mod.ts";
import echo, { Answer } from "./lib/echo_device.ts";
import {
  frontendRequests,
  protocolFeatureMask,
  type RequestRule,
} from "../../src/vhost_user/mod.ts";
import { processState } from "../../tools/lib/process_state.ts";
import { packedRing, splitRing } from "./lib/raw_rings.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

/** Runs a test with a served echo device, on the main thread and on a queue thread. */
function forBothPlanes(
  name: string,
  test: (server: DeviceServer, socketPath: string) => Promise<void>,
  options: Partial<ServeOptions> = {},
): void {
  for (const plane of ["main", "thread"] as const) {
    Deno.test(`${name} (${plane})`, async () => {
      const directory = Deno.makeTempDirSync();
      const socketPath = `${directory}/echo.sock`;
      {
        await using server = await serve(echo, { socketPath, plane, ...options });
        await test(server, socketPath);
      }
      await watchesEnded();
      assertEquals([...Deno.readDirSync(directory)], [], "the socket file is removed");
      Deno.removeSync(directory);
    });
  }
}

/** The features that every driver here acknowledges: all but LOUD. */
const QUIET = transportMask("VERSION_1", "EVENT_IDX", "INDIRECT_DESC", "PROTOCOL_FEATURES");

const start = (path: string, options: VirtioDriverOptions = {}) =>
  VirtioDriver.start(path, { queues: [256, 256], features: QUIET, ...options });

forBothPlanes(
  "A device completes requests at once, by a promise, and later",
  async (_server, path) => {
    await using driver = await start(path);
    for (const how of [Answer.NOW, Answer.PROMISED, Answer.LATER]) {
      // LATER's timer needs the event loop, which a queue thread has only while a promise is pending.
      const helper = how === Answer.LATER
        ? driver.request(0, [Uint8Array.of(Answer.PROMISED)], [1])
        : undefined;
      const request = Uint8Array.of(how, ...bytes("hello"));
      const { written, data } = await driver.request(0, [request], [6]);
      assertEquals([written, [...data[0]]], [6, [...request]]);
      await helper;
    }
  },
);

forBothPlanes("A device sees the features that were acknowledged", async (server, path) => {
  {
    await using driver = await start(path, { features: QUIET | 1n });
    assertEquals(text((await driver.request(0, [bytes(" loud")], [5])).data[0]), " LOUD");
  }
  await using driver = await start(path);
  assertEquals(text((await driver.request(0, [bytes(" quiet")], [6])).data[0]), " quiet");
  const byName = Object.fromEntries(
    server.record().features.map((feature) => [feature.name, feature]),
  );
  assertEquals([byName.LOUD.offered, byName.LOUD.acknowledged], [true, false]);
  assertEquals([byName.SHY.offered, byName.SHY.acknowledged], [false, false]);
  assertEquals([byName.VERSION_1.offered, byName.VERSION_1.acknowledged], [true, true]);
});

forBothPlanes(
  "SET_FEATURES refuses what was not offered, and changes nothing",
  async (server, path) => {
    await using connection = await FrontendConnection.connect(path);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    const offered = await connection.getFeatures();
    await connection.setFeatures(offered);
    const error = await assertRejects(
      () => connection.setFeatures(offered | 1n << 5n),
      FrontendError,
    );
    assertEquals(error.reason, "refused");
    assertEquals(server.record().errors.latest.at(-1)!.rule, "SET_FEATURES");
    assert(server.record().errors.latest.at(-1)!.message.includes("SHY"));
    assertEquals(server.record().features.find(({ name }) => name === "LOUD")!.acknowledged, true);
  },
);

forBothPlanes(
  "A device sends events into buffers that the driver supplied",
  async (_server, path) => {
    await using driver = await start(path);
    const event = driver.request(1, [], [4]);
    await driver.request(0, [Uint8Array.of(77)], [1]);
    const { written, data } = await event;
    assertEquals([written, data[0][0]], [1, 77]);
  },
);

forBothPlanes(
  "Config space can be read and written at any valid offset and size, and no other",
  async (server, path) => {
    await using driver = await start(path);
    const { connection } = driver;
    for (let offset = 0; offset <= 6; offset++) {
      for (let size = 0; offset + size <= 6; size++) {
        const all = [4, 3, 2, 1, 5, 0];
        assertEquals(
          [...await connection.getConfig(offset, size)],
          all.slice(offset, offset + size),
        );
      }
    }
    await assertRejects(() => connection.getConfig(0, 7), FrontendError);
    await assertRejects(() => connection.getConfig(6, 1), FrontendError);
    await assertRejects(() => connection.setConfig(6, Uint8Array.of(1)), FrontendError);
    await assertRejects(() => connection.setConfig(0, Uint8Array.of(1)), FrontendError); // read-only
    await assertRejects(() => connection.setConfig(4, Uint8Array.of(12)), FrontendError); // the device says no
    assertEquals([...await connection.getConfig(0, 6)], [4, 3, 2, 1, 5, 0]);
    await connection.setConfig(4, Uint8Array.of(9));
    assertEquals([...await connection.getConfig(4, 2)], [9, 9]);
    const { data } = await driver.request(0, [bytes(" ?")], [2]);
    assertEquals(data[0][1], 9, "the data half sees the change");
    const volume = server.record().config.fields.find(({ name }) => name === "volume")!;
    assertEquals([volume.writes, volume.changes], [1, 1]);
    await driver.reset();
    assertEquals([...await connection.getConfig(4, 2)], [5, 0]);
  },
);

forBothPlanes("A config change is announced, and held until a ring runs", async (server, path) => {
  await using driver = await VirtioDriver.connect(path, { queues: [256, 256] });
  server.host.control.commands!.louder.run(undefined);
  let came = false;
  const announcement = driver.negotiated.backChannel!.next().finally(() => came = true);
  await driver.connection.getFeatures();
  assertEquals(came, false);
  await driver.restart();
  assertEquals((await announcement).message.request, "CONFIG_CHANGE_MSG");
  server.host.control.commands!.louder.run(undefined);
  assertEquals((await driver.negotiated.backChannel!.next()).message.request, "CONFIG_CHANGE_MSG");
  assertEquals((await driver.connection.getConfig(4, 1))[0], 7);
});

forBothPlanes(
  "A front-end that reconnects without reading config gets an announcement",
  async (server, path) => {
    const features = QUIET | transportMask("PROTOCOL_FEATURES");
    for (const inflight of [false, true]) {
      await using driver = await start(path, { features, inflight });
      const next = () => driver.negotiated.backChannel!.next();
      await driver.request(0, [Uint8Array.of(0, 1)], [2]);
      // Neither the first start nor this is announced.
      server.host.control.commands!.louder.run(undefined);
      assertEquals((await next()).message.request, "CONFIG_CHANGE_MSG");
      await driver.reconnect();
      assertEquals((await next()).message.request, "CONFIG_CHANGE_MSG");
      // Announced once.
      server.host.control.commands!.louder.run(undefined);
      assertEquals((await next()).message.request, "CONFIG_CHANGE_MSG");
      await driver.request(0, [Uint8Array.of(0, 1)], [2]);
      await assertRejects(() => driver.negotiated.backChannel!.next(1), FrontendError);
    }
  },
);

forBothPlanes(
  "A config change before the back-channel exists is announced when it does",
  async (server, path) => {
    const protocolFeatures = protocolFeatureMask("REPLY_ACK", "MQ", "CONFIG");
    await using driver = await start(path, { protocolFeatures });
    await driver.connection.getConfig(0, 6);
    server.host.control.commands!.louder.run(undefined);
    await driver.connection.setProtocolFeatures(
      protocolFeatures | protocolFeatureMask("BACKEND_REQ"),
    );
    await using channel = await driver.connection.openBackChannel();
    assertEquals((await channel.next()).message.request, "CONFIG_CHANGE_MSG");
  },
);

forBothPlanes("A bad chain breaks its queue, and no other", async (server, path) => {
  await using driver = await start(path, { queues: [256, 256, 256] });
  splitRing(driver).setDescriptor(0, { gpa: 0xdead_0000_0000n, bytes: 1, flags: 0, next: 0 });
  splitRing(driver).setAvailable(0, 0);
  const broken = driver.request(0, [bytes(" x")], [2]);
  splitRing(driver).setDescriptor(0, { gpa: 0xdead_0000_0000n, bytes: 1, flags: 0, next: 0 });
  await assertRejects(() => broken, FrontendError, "broken");
  assertEquals(text((await driver.request(1, [bytes(" fine")], [5])).data[0]), " fine");
  // The queue's thread tells the record, and an eventfd tells the driver.
  while (server.record().queues[0].faults.length === 0) await driver.connection.getFeatures();
  const record = server.record();
  assertEquals(record.queues.map(({ broken }) => broken), [true, false, false]);
  assertEquals(record.queues[0].faults.at(-1)!.rule, "buffer-address");
  assertEquals(record.queues[0].faults.at(-1)!.section, "virtio 1.3, 2.7.5");
  assert(record.queues[0].faults.at(-1)!.message.includes("0xdead00000000"));
  await driver.reset();
  await driver.restart();
  assertEquals(text((await driver.request(0, [bytes(" again")], [6])).data[0]), " again");
}, { options: { queues: 2 } });

for (
  const [name, how] of [["throws", Answer.THROW], ["rejects", Answer.REJECT], [
    "says too much",
    Answer.TOO_MUCH,
  ], ["promises too much", Answer.PROMISE_TOO_MUCH]] as const
) {
  forBothPlanes(
    `A device that ${name} breaks its queue, and a reset mends it`,
    async (server, path) => {
      await using driver = await start(path);
      await assertRejects(
        () => driver.request(0, [Uint8Array.of(how)], [1]),
        FrontendError,
        "broken",
      );
      await driver.reset();
      assertEquals(server.record().queues[0].faults.at(-1)!.rule, "device");
      assertEquals(server.record().queues[0].inFlight, 0);
      await driver.restart();
      assertEquals((await driver.request(0, [Uint8Array.of(0, 7)], [2])).data[0][1], 7);
    },
  );
}

forBothPlanes(
  "GET_VRING_BASE waits for chains in flight on a queue that broke meanwhile",
  async (server, path) => {
    await using driver = await start(path);
    const slow = driver.request(0, [Uint8Array.of(Answer.PROMISED)], [1]);
    const wrong = driver.request(0, [Uint8Array.of(Answer.PROMISE_TOO_MUCH)], [1]);
    await Promise.allSettled([slow, wrong]);
    await driver.stop();
    const [{ requests, inFlight }] = server.record().queues;
    assertEquals([requests, inFlight], [1, 0], "the slow one was completed, the other given up");
  },
);

forBothPlanes(
  "GET_VRING_BASE waits until chains in flight are completed",
  async (server, path) => {
    await using driver = await start(path);
    const requests = Array.from(
      { length: 20 },
      (_, i) => driver.request(0, [Uint8Array.of(Answer.PROMISED, i)], [2]),
    );
    const taken = () => {
      const { requests, inFlight } = server.record().queues[0];
      return requests + inFlight;
    };
    while (taken() < 20) await driver.connection.getFeatures();
    const bases = await driver.stop();
    assertEquals(bases[0], 20);
    for (const [i, request] of requests.entries()) {
      assertEquals((await request).data[0][1], i);
    }
    await driver.restart();
    assertEquals((await driver.request(0, [Uint8Array.of(0, 99)], [2])).data[0][1], 99);
  },
);

forBothPlanes("Memory slots are added and removed while rings run", async (_server, path) => {
  using memory = new SharedMemory(1 << 20);
  await using driver = await start(path, { memory, useMemSlots: true });
  for (let round = 0; round < 5; round++) {
    using extra = memory.addRegion({ bytes: 1 << 20 });
    await driver.giveMemory();
    assertEquals((await driver.request(0, [Uint8Array.of(0, round)], [2])).data[0][1], round);
    memory.removeRegion(extra);
    await driver.giveMemory();
    assertEquals((await driver.request(0, [Uint8Array.of(0, round)], [2])).data[0][1], round);
  }
});

forBothPlanes(
  "A ring whose memory is removed stops, and the others continue",
  async (server, path) => {
    await using driver = await start(path);
    await driver.connection.tell({ request: "SET_MEM_TABLE", regions: [] }, []);
    assertEquals(server.record().queues.map(({ running }) => running), [false, false]);
    assertEquals(server.record().queues[0].faults.at(-1)!.rule, "ring-address");
    await driver.connection.getFeatures();
  },
);

forBothPlanes(
  "A ring whose memory is removed and added again resumes where it was",
  async (server, path) => {
    for (const useMemSlots of [true, false]) {
      for (const packed of [false, true]) {
        await using driver = await start(path, { useMemSlots, packed });
        const { connection, memory } = driver;
        const [region] = memory.regions;
        for (let round = 0; round < 3; round++) {
          assertEquals((await driver.request(0, [Uint8Array.of(0, round)], [2])).data[0][1], round);
          if (useMemSlots) await connection.remMemReg(region);
          else await connection.tell({ request: "SET_MEM_TABLE", regions: [] }, []);
          assertEquals(server.record().queues.map(({ running }) => running), [false, false]);
          // Made available while the device does not look.
          const request = driver.request(0, [Uint8Array.of(0, 9)], [2]);
          if (useMemSlots) await connection.addMemReg(region);
          else await connection.setMemTable(memory);
          assertEquals((await request).data[0][1], 9);
          assertEquals(server.record().queues.map(({ running }) => running), [true, true]);
        }
      }
    }
  },
);

forBothPlanes(
  "Without bit 30 rings are enabled by SET_FEATURES, with protocol features as well",
  async (server, path) => {
    for (const protocolFeatures of ["all", 0n] as const) {
      await using driver = await VirtioDriver.connect(path, { queues: [16, 16], protocolFeatures });
      const { connection } = driver;
      await connection.setFeatures(QUIET & ~transportMask("PROTOCOL_FEATURES"));
      await driver.giveMemory();
      const { descriptorGpa, availableGpa, usedGpa, kickFd, size } = driver.queues[0].handle;
      const address = (gpa: number) => BigInt(driver.memory.userAddress(gpa));
      await connection.setVringNum(0, size);
      await connection.setVringBase(0, 0);
      await connection.setVringAddr({
        index: 0,
        flags: 0,
        descriptor: address(descriptorGpa),
        available: address(availableGpa),
        used: address(usedGpa),
        log: 0n,
      });
      await connection.setVringKick(0, kickFd);
      await connection.getFeatures();
      const [{ running, enabled }] = server.record().queues;
      assertEquals([running, enabled], [true, true]);
      const [queue] = driver.queues;
      const gpa = driver.memory.alloc(16);
      queue.add([{ gpa, bytes: 2 }], [{ gpa: gpa + 8, bytes: 2 }]);
      queue.publish();
      queue.kick();
      while (queue.poll() < 0) await connection.getFeatures();
    }
  },
);

forBothPlanes("SET_MEM_TABLE replaces the memory of running rings", async (_server, path) => {
  await using driver = await start(path, { useMemSlots: false });
  for (let round = 0; round < 3; round++) {
    await driver.connection.setMemTable(driver.memory);
    assertEquals((await driver.request(0, [Uint8Array.of(0, round)], [2])).data[0][1], round);
  }
});

forBothPlanes("An invalid SET_MEM_TABLE changes nothing", async (server, path) => {
  await using driver = await start(path, { useMemSlots: false });
  const [{ message, fd }] = driver.memory.regions;
  const wrong = [
    [message, message],
    [{ ...message, size: message.size + 4096n }],
    [{ ...message, size: 0n }],
  ];
  for (const regions of wrong) {
    const fds = regions.map(() => fd.number);
    const refused = driver.connection.tell({ request: "SET_MEM_TABLE", regions }, fds);
    assertEquals((await assertRejects(() => refused, FrontendError)).reason, "refused");
    assertEquals((await driver.request(0, [Uint8Array.of(0, 8)], [2])).data[0][1], 8);
  }
  assertEquals(server.record().errors.total, wrong.length);
});

forBothPlanes(
  "A ring without eventfds is polled, and sends no notifications",
  async (_server, path) => {
    await using driver = await start(path);
    await driver.connection.setVringCall(0, undefined);
    await driver.connection.getVringBase(0);
    const queue = driver.queues[0];
    const head = queue.add([{ gpa: driver.memory.alloc(16), bytes: 2 }], [{
      gpa: driver.memory.alloc(16),
      bytes: 2,
    }]);
    queue.publish();
    await driver.connection.setVringKick(0, undefined);
    await driver.connection.setVringEnable(0, true);
    let done = -1;
    for (let i = 0; i < 1000 && done < 0; i++) {
      await driver.connection.getFeatures();
      done = queue.poll();
    }
    assertEquals(done, head);
  },
);

/** Every way to negotiate a ring. */
const ringOptions = [false, true].flatMap((packed) =>
  [false, true].flatMap((eventIndex) =>
    [false, true].map((inOrder) => ({ packed, eventIndex, inOrder }))
  )
);

const ringName = ({ packed, eventIndex, inOrder }: typeof ringOptions[number]) =>
  `${packed ? "packed" : "split"}, ${eventIndex ? "event index" : "flags"}${
    inOrder ? ", in order" : ""
  }`;

for (const ring of ringOptions) {
  forBothPlanes(
    `Requests are answered in every way, around the ring (${ringName(ring)})`,
    async (server, path) => {
      // Room for a whole round: a request that waits for room would lose its turn.
      await using driver = await start(path, { queues: [128, 16], ...ring });
      const done: number[] = [];
      const ways = [Answer.NOW, Answer.PROMISED, Answer.LATER];
      for (let round = 0; round < 10; round++) {
        const numbers = Array.from({ length: 30 }, (_, i) => i);
        const all = numbers.map(async (i) => {
          // A promise keeps the event loop running for the last ones.
          const how = i === 29 ? Answer.PROMISED : ways[(i * 7 + round) % 3];
          const { data } = await driver.request(0, [Uint8Array.of(how, i)], [1, 1, 3], {
            indirect: i % 2 === 0,
          });
          assertEquals([data[0][0], data[1][0]], [how, i]);
          done.push(round * 30 + i);
        });
        await Promise.all(all);
      }
      const sorted = done.toSorted((a, b) => a - b);
      assertEquals(sorted, Array.from({ length: 300 }, (_, i) => i));
      if (ring.inOrder) assertEquals(done, sorted);
      assertEquals(server.record().queues[0].requests, 300);
      assertEquals(server.record().errors.latest, []);
    },
  );

  forBothPlanes(
    `A ring stops and goes on where it was (${ringName(ring)})`,
    async (_server, path) => {
      const size = ring.packed ? 7 : 8;
      await using driver = await start(path, { queues: [size, size], ...ring });
      let made = 0;
      for (let round = 0; round < 8; round++) {
        const requests = Array.from(
          { length: round % 5 },
          (_, i) =>
            driver.request(0, [Uint8Array.of(Answer.PROMISED, i)], [2], { indirect: false }),
        );
        const base = (await driver.stop())[0];
        await driver.restart();
        for (const [i, request] of requests.entries()) assertEquals((await request).data[0][1], i);
        made += requests.length;
        if (!ring.packed) assert(base <= made);
      }
      const [base] = await driver.stop();
      const wrap = Math.floor(made * 2 / size) % 2 === 0 ? 0x8000 : 0;
      const half = made * 2 % size | wrap;
      assertEquals(base, ring.packed ? (half | half << 16) >>> 0 : made);
      await driver.restart();
      assertEquals((await driver.request(0, [Uint8Array.of(0, 9)], [2])).data[0][1], 9);
    },
  );
}

forBothPlanes("A packed ring starts at DPDK's half of a base", async (_server, path) => {
  await using driver = await VirtioDriver.connect(path, {
    queues: [4, 4],
    features: QUIET,
    packed: true,
  });
  await driver.restart([0x8000, 0x8000]);
  for (let i = 0; i < 9; i++) {
    assertEquals((await driver.request(0, [Uint8Array.of(0, i)], [2])).data[0][1], i);
  }
  assertEquals((await driver.stop())[0], 0x8001_8001);
});

forBothPlanes("A packed ring refuses a base outside of it", async (_server, path) => {
  await using driver = await VirtioDriver.connect(path, {
    queues: [4, 4],
    features: QUIET,
    packed: true,
  });
  await assertRejects(() => driver.restart([0x8004_8004, 0x8000_8000]), FrontendError);
  await driver.restart([0x8000_8000, 0x8000_8000]);
  assertEquals((await driver.request(0, [Uint8Array.of(0, 1)], [2])).data[0][1], 1);
});

forBothPlanes("A packed ring may have any size, a split one may not", async (_server, path) => {
  for (const size of [2, 3, 100, 255]) {
    await using driver = await start(path, { queues: [size, size], packed: true });
    for (let i = 0; i < 10; i++) {
      const { data } = await driver.request(0, [Uint8Array.of(0, i)], [2]);
      assertEquals(data[0][1], i);
    }
  }
});

forBothPlanes(
  "A bad list breaks its packed queue, and a reset repairs it",
  async (server, path) => {
    await using driver = await start(path, { packed: true });
    const { AVAIL, NEXT } = packedDescriptorFlags;
    packedRing(driver).setDescriptor(0, { gpa: 0n, bytes: 1, flags: AVAIL | NEXT });
    driver.queues[0].kick();
    await driver.stop();
    const [fault] = server.record().queues[0].faults;
    assertEquals([fault.rule, fault.section], ["list-available", "virtio 1.3, 2.8.6"]);
    await driver.reset();
    await driver.restart();
    assertEquals((await driver.request(0, [Uint8Array.of(0, 7)], [2])).data[0][1], 7);
  },
);

forBothPlanes(
  "In order, a request waits for its predecessors, and a failed one blocks the rest",
  async (_server, path) => {
    for (const packed of [false, true]) {
      await using driver = await start(path, { inOrder: true, packed });
      const done: number[] = [];
      const request = (how: number, i: number) =>
        driver.request(0, [Uint8Array.of(how, i)], [2]).then(() => done.push(i));
      await Promise.all([request(Answer.PROMISED, 0), request(Answer.NOW, 1)]);
      assertEquals(done, [0, 1]);
      const fine = request(Answer.PROMISED, 2);
      const bad = request(Answer.REJECT, 3);
      const behind = request(Answer.NOW, 4);
      await assertRejects(() => bad, FrontendError);
      await assertRejects(() => behind, FrontendError);
      await assertRejects(() => fine, FrontendError); // its queue broke before it was done
      await driver.reset();
      await driver.restart();
      await request(Answer.NOW, 5);
      assertEquals(done, [0, 1, 5]);
    }
  },
);

forBothPlanes(
  "A request is refused while its protocol feature is offered but not negotiated",
  async (server, path) => {
    await using connection = await FrontendConnection.connect(path);
    const offered = await connection.getProtocolFeatures();
    await connection.setProtocolFeatures(protocolFeatureMask("REPLY_ACK"));
    using fd = createEventfd();
    const requests: [FrontendMessage, number[]][] = [
      [{ request: "SET_BACKEND_REQ_FD" }, [fd.number]],
      [{ request: "SET_CONFIG", offset: 0, size: 0, flags: 0, data: new Uint8Array() }, []],
      [{ request: "RESET_DEVICE" }, []],
      [{ request: "SET_STATUS", value: 1n }, []],
    ];
    for (const [message, fds] of requests) {
      const { requires }: RequestRule = frontendRequests[message.request];
      assert((offered & protocolFeatureMask(requires!)) !== 0n, message.request);
      await assertRejects(() => connection.tell(message, fds), FrontendError);
      assertStringIncludes(
        server.record().errors.latest.at(-1)!.message,
        `Expected the protocol feature ${requires} to be negotiated before ${message.request}`,
      );
    }
    await assertRejects(() => connection.getQueueNum());
    await connection.setProtocolFeatures(offered);
    for (const [message] of requests.slice(2)) await connection.tell(message);
    assertEquals(await connection.getQueueNum(), server.record().queues.length);
  },
);

forBothPlanes(
  "Requests without a feature get an error reply and change nothing",
  async (_server, path) => {
    await using connection = await FrontendConnection.connect(path);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    using fd = createEventfd();
    const unknown: [FrontendMessage, number[]][] = [
      [{ request: "SEND_RARP", value: 0n }, []],
      [{ request: "NET_SET_MTU", value: 1500n }, []],
      [{ request: "GPU_SET_SOCKET" }, [fd.number]],
      [{ request: "SET_VRING_ENDIAN", index: 0, num: 0 }, []],
      [{ request: "SET_LOG_FD" }, [fd.number]],
      [{ request: "SET_VRING_NUM", index: 9, num: 16 }, []],
      [{ request: "SET_VRING_NUM", index: 0, num: 3 }, []],
      [{ request: "SET_VRING_NUM", index: 0, num: 512 }, []],
      [{
        request: "SET_VRING_ADDR",
        index: 0,
        flags: 0,
        descriptor: 0n,
        used: 0n,
        available: 0n,
        log: 0n,
      }, []],
      [{ request: "SET_PROTOCOL_FEATURES", value: 1n << 14n }, []],
    ];
    for (const [message, fds] of unknown) {
      const error = await assertRejects(() => connection.tell(message, fds), FrontendError);
      assertEquals(error.reason, "refused", message.request);
    }
    assertGreater((await connection.getFeatures()).toString().length, 0);
  },
);

forBothPlanes(
  "A truncated message of any length ends the connection or gets a reply",
  async (_server, path) => {
    const message = frontendMessages.encode({ request: "SET_VRING_NUM", index: 0, num: 16 });
    for (let length = 0; length < message.length; length++) {
      const connection = UnixConnection.connect(path);
      await connection.send(message.subarray(0, length));
      await connection.close();
    }
    for (const [at, value] of [[4, 2], [4, 0x11], [8, 0xff], [11, 0x80]]) {
      const connection = UnixConnection.connect(path);
      const wrong = message.slice();
      wrong[at] = value;
      await connection.send(wrong);
      connection.shutdown();
      await connection.close();
    }
    await using driver = await start(path);
    assertEquals((await driver.request(0, [Uint8Array.of(0, 5)], [2])).data[0][1], 5);
  },
);

forBothPlanes("Descriptors of a message that takes none are closed", async (server, path) => {
  await server.host.tell({ kind: "features", bits: 0n }); // the queue thread has read its modules
  await using connection = await FrontendConnection.connect(path);
  await connection.getFeatures();
  using fd = createEventfd();
  const before = processState().fds;
  for (let count = 1; count <= 40; count++) {
    await connection.send(
      frontendMessages.encode({ request: "SET_OWNER" }),
      Array(count).fill(fd.number),
    );
  }
  await connection.getFeatures();
  // Fewer if resources of an earlier test were freed meanwhile
  assertLessOrEqual(processState().fds, before);
});

forBothPlanes("A second front-end waits for its turn", async (_server, path) => {
  const first = await start(path);
  const second = start(path);
  assertEquals((await first.request(0, [Uint8Array.of(0, 1)], [2])).data[0][1], 1);
  await first.close();
  await using driver = await second;
  assertEquals((await driver.request(0, [Uint8Array.of(0, 2)], [2])).data[0][1], 2);
});

forBothPlanes(
  "A front-end that disconnects in the middle of a message leaves nothing behind",
  async (server, path) => {
    const driver = await start(path);
    const held = Uint8Array.of(Answer.WHEN_STOPPED);
    const lost = driver.request(0, [held], [1]).catch((error) => error);
    await driver.disconnect();
    await driver.close();
    assert(await lost instanceof FrontendError);
    await using next = await start(path);
    assertEquals((await next.request(0, [Uint8Array.of(0, 3)], [2])).data[0][1], 3);
    assertEquals(server.record().connections.total, 2);
  },
);

Deno.test("Connections whose rings never run create no view of guest memory", async () => {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/rng.sock`;
  {
    await using server = await serve(rng, { socketPath, plane: "main" });
    using memory = createMemfd("guest", 4096);
    const region = { guestAddress: 0n, userAddress: 0n, mmapOffset: 0n, size: 4096n };
    // V8 keeps collecting garbage while a thread has a view of terabytes, and may free those of
    // other tests meanwhile.
    const { external } = Deno.memoryUsage();
    for (let i = 0; i < 5; i++) {
      const connection = await FrontendConnection.connect(socketPath);
      await connection.setProtocolFeatures(await connection.getProtocolFeatures());
      await connection.tell({ request: "ADD_MEM_REG", region }, [memory.number]);
      assert(Deno.memoryUsage().external < external + 2 ** 40);
      await connection.close();
    }
    await server.idle();
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("Hundreds of connections leave no descriptor, mapping or thread", async () => {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/rng.sock`;
  await using server = await serve(rng, { socketPath });
  const cycle = async (how: number) => {
    if (how % 10 !== 0) {
      const connection = await FrontendConnection.connect(socketPath);
      await connection.getFeatures();
      return await connection.close();
    }
    await using driver = await VirtioDriver.start(socketPath);
    assertEquals((await driver.request(0, [], [16])).written, 16);
  };
  for (let i = 0; i < 20; i++) await cycle(i);
  await server.idle();
  const before = processState();
  for (let i = 0; i < 300; i++) await cycle(i);
  await server.idle();
  assertEquals(processState(), before);
  assertEquals(server.record().connections.total, 320);
  assertEquals(server.record().queues[0].requests, 32);
  await server.close();
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("serve() says what is wrong with a socket path", async () => {
  const directory = Deno.makeTempDirSync();
  const path = `${directory}/x`;
  const refused = (socketPath: string, why: string) =>
    assertRejects(() => serve(rng, { socketPath, plane: "main" }), EndpointError, why);
  await refused(`/tmp/${"x".repeat(110)}`, "107 bytes");
  await refused(`${directory}/none/x`, "its directory does not exist");
  Deno.writeTextFileSync(path, "");
  await refused(path, "not a socket");
  Deno.removeSync(path);
  {
    await using _server = await serve(rng, { socketPath: path, plane: "main" });
    await refused(path, "another server");
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("serve() serves a given connection, and ends with it", async () => {
  const [ours, theirs] = UnixConnection.pair();
  const server = await serve(rng, { fd: theirs.fd.release(), plane: "main" });
  {
    await using driver = await VirtioDriver.start(ours);
    assertEquals((await driver.request(0, [], [8])).written, 8);
  }
  await server.finished;
  await server.close();
  await watchesEnded();
  closeAll([]);
});
