/** Limits of SECURITY.md on the resources that a front-end can make a device hold. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type DeviceServer, serve } from "../../mod.ts";
import {
  FrontendConnection,
  FrontendError,
  frontendMessages,
  protocolFeatureMask,
  SharedMemory,
  UnixConnection,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { createEventfd, createMemfd } from "../../src/linux/mod.ts";
import { MAX_REGIONS, SPAN_BYTES } from "../../src/memory/mod.ts";
import { MAX_QUEUES } from "../../src/runtime/device_host.ts";
import { withDirectory } from "./lib/directory.ts";
import echo, { Answer } from "./lib/echo_device.ts";
import { processState } from "../../tools/lib/process_state.ts";

/** Runs a test with a served echo device with request queues and one event queue. */
function withEcho(
  test: (server: DeviceServer, path: string) => Promise<void>,
  queues = 1,
): Promise<void> {
  return withDirectory(async (directory) => {
    const socketPath = `${directory}/echo.sock`;
    await using server = await serve(echo, { socketPath, plane: "main", options: { queues } });
    await test(server, socketPath);
  });
}

async function expectEcho(driver: VirtioDriver): Promise<void> {
  assertEquals((await driver.request(0, [Uint8Array.of(Answer.NOW, 7)], [2])).data[0][1], 7);
}

const refused = async (promise: Promise<unknown>) =>
  assertEquals((await assertRejects(() => promise, FrontendError)).reason, "refused");

Deno.test("a guest has at most 509 regions of memory", () =>
  withEcho(async (server, path) => {
    using memory = new SharedMemory(1 << 20);
    await using driver = await VirtioDriver.start(path, {
      memory,
      queues: [16, 16],
      useMemSlots: true,
    });
    assertEquals(await driver.connection.getMaxMemSlots(), MAX_REGIONS);
    while (memory.regions.length < MAX_REGIONS) memory.addRegion({ bytes: 4096 });
    await driver.giveMemory();
    await expectEcho(driver);
    const extra = memory.addRegion({ bytes: 4096 });
    await refused(driver.giveMemory());
    assert(server.record().errors.latest.at(-1)!.message.includes("at most 509 memory regions"));
    memory.removeRegion(extra);
    extra[Symbol.dispose]();
    await expectEcho(driver);
    // The front-end does not record regions that were refused.
    await driver.connection.remMemReg(memory.regions.at(-1)!);
    await driver.connection.addMemReg(memory.regions.at(-1)!);
  }));

Deno.test("a guest has no more memory than the span has addresses", () =>
  withEcho(async (_server, path) => {
    await using driver = await VirtioDriver.start(path, { queues: [16, 16] });
    using file = createMemfd("huge", SPAN_BYTES + 4096);
    const region = { guestAddress: 0n, userAddress: 1n << 50n, mmapOffset: 0n };
    const tell = (size: number) =>
      driver.connection.tell(
        { request: "ADD_MEM_REG", region: { ...region, size: BigInt(size) } },
        [file.number],
      );
    await refused(tell(SPAN_BYTES + 4096));
    await refused(tell(SPAN_BYTES)); // the driver's own region is in there
    await expectEcho(driver);
  }));

Deno.test("a device has at most 256 queues, and a bounded number of descriptors for them", async () => {
  await assertRejects(
    () => withEcho(() => Promise.resolve(), MAX_QUEUES),
    RangeError,
    "at most 256 queues, got 257",
  );
  await withEcho(async (server, path) => {
    const before = processState();
    const connection = await FrontendConnection.connect(path);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    const queues = await connection.getQueueNum();
    assertEquals(queues, MAX_QUEUES);
    using fd = createEventfd();
    const [channel, ours] = UnixConnection.pair();
    const held = () => processState().fds - before.fds - 3; // the test's own
    // Repeatedly: replaced descriptors are closed.
    for (let round = 0; round < 3; round++) {
      for (let queue = 0; queue < queues; queue++) {
        await connection.setVringKick(queue, fd.number);
        await connection.setVringCall(queue, fd.number);
        await connection.setVringErr(queue, fd.number);
      }
      await connection.tell({ request: "SET_BACKEND_REQ_FD" }, [channel.fd.number]);
      // Both ends of the connection, its back-channel, and three of each queue.
      assertEquals(held(), 2 + 1 + queues * 3);
    }
    await connection.close();
    await server.idle();
    assertEquals(held(), 0);
    for (const end of [channel, ours]) await end.close();
  }, MAX_QUEUES - 1);
});

Deno.test("a message brings no more descriptors than one sendmsg can, however it is split", () =>
  withEcho(async (server, path) => {
    using fd = createEventfd();
    const message = frontendMessages.encode({ request: "SET_VRING_NUM", index: 0, num: 16 });
    const fds = new Array(253).fill(fd.number);
    {
      await using connection = await FrontendConnection.connect(path);
      await connection.getFeatures();
      const before = processState().fds;
      await connection.send(message, fds);
      await connection.getFeatures();
      assertEquals(processState().fds, before, "they came with the wrong message");
      assertEquals(server.record().errors.latest.at(-1)!.rule, "SET_VRING_NUM");
    }
    await using connection = await FrontendConnection.connect(path);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    const before = processState().fds;
    let most = 0;
    for (let i = 0; i < message.length; i++) {
      await connection.send(message.subarray(i, i + 1), fds);
      // The other side reads meanwhile.
      for (let j = 0; j < 20; j++) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        most = Math.max(most, processState().fds - before);
      }
    }
    await connection.getFeatures();
    assert(most <= 2 * 253, `${most} at a time`); // with the header, and with the payload
    assertEquals(processState().fds, before);
    const { rule, message: why } = server.record().errors.latest.at(-1)!;
    assertEquals(rule, "SET_VRING_NUM");
    assert(why.includes("Expected at most 0 file descriptors, got more"), why);
  }));

Deno.test("the record keeps the latest entries of each list, and counts all", () =>
  withEcho(async (server, path) => {
    for (let i = 0; i < 20; i++) {
      await using connection = await FrontendConnection.connect(path);
      await connection.setProtocolFeatures(protocolFeatureMask("STATUS"));
      for (let j = 0; j < 5; j++) {
        await connection.setStatus(j);
        await connection.tell({ request: "SET_VRING_NUM", index: 99, num: 1 });
      }
      await connection.getFeatures();
    }
    await server.idle();
    const { connections, errors, status } = server.record();
    assertEquals([connections.total, connections.latest.length], [20, 16]);
    assertEquals([errors.total, errors.latest.length], [100, 32]);
    assert(status.timeline.length <= 64);
    // The whole record can be read and sent.
    assert(JSON.stringify(server.record()).length < 1 << 20);
  }));
