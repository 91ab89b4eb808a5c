/** Deviations of existing front-ends from the protocol that work: ARCHITECTURE.md, "Lenient". */
import { assertEquals } from "@std/assert";
import { type AnyDevice, type DeviceServer, serve } from "../../mod.ts";
import blk from "../../backends/blk/mod.ts";
import {
  FrontendConnection,
  type FrontendMessage,
  frontendMessages,
  VirtioDriver,
} from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import echo from "./lib/echo_device.ts";

/** Serves a device on the main thread and runs a test. */
async function served(
  test: (path: string, server: DeviceServer) => Promise<void>,
  device: AnyDevice = echo,
  options: Record<string, unknown> = {},
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const plane = device === echo ? "main" : "thread";
  {
    await using server = await serve(device, { socketPath: `${directory}/s`, plane, options });
    await test(`${directory}/s`, server);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
}

async function works(driver: VirtioDriver): Promise<void> {
  assertEquals((await driver.request(0, [Uint8Array.of(0, 9)], [2])).data[0][1], 9);
}

Deno.test("Rings may be enabled before features, memory and addresses are set", () =>
  served(async (path) => {
    await using driver = await VirtioDriver.connect(path, { queues: [16, 16] });
    for (const queue of [0, 1]) await driver.connection.setVringEnable(queue, true);
    await driver.restart();
    await works(driver);
  }));

Deno.test("SET_VRING_CALL may repeat a descriptor, or have none", () =>
  served(async (path) => {
    await using driver = await VirtioDriver.start(path, { queues: [16, 16] });
    const { connection, queues: [{ handle }] } = driver;
    for (let i = 0; i < 3; i++) {
      await connection.setVringCall(0, handle.callFd);
      await works(driver);
      await connection.setVringCall(0, undefined);
      await connection.setVringCall(0, handle.callFd);
      await works(driver);
    }
  }));

Deno.test("RESET_OWNER disables the rings, and SET_VRING_ENABLE enables them again", () =>
  served(async (path, server) => {
    await using driver = await VirtioDriver.start(path, { queues: [16, 16] });
    const enabled = () => server.record().queues.map(({ enabled }) => enabled);
    await driver.connection.resetOwner();
    assertEquals(enabled(), [false, false]);
    const request = works(driver);
    await driver.connection.setVringEnable(0, true);
    await request;
  }));

Deno.test("REM_MEM_REG may carry a descriptor", () =>
  served(async (path) => {
    await using driver = await VirtioDriver.start(path, { queues: [16, 16] });
    const [{ message, fd }] = driver.memory.regions;
    await driver.connection.tell({ request: "REM_MEM_REG", region: message }, [fd.number]);
    await driver.connection.tell({ request: "ADD_MEM_REG", region: message }, [fd.number]);
    await works(driver);
  }));

Deno.test("NEED_REPLY may be set on every request: each gets one reply", () =>
  served(async (path) => {
    await using connection = await FrontendConnection.connect(path);
    const ask = async (message: FrontendMessage) => {
      await connection.send(frontendMessages.encode(message, { needReply: true }));
      return await connection.receive();
    };
    // A failure is acknowledged even before REPLY_ACK is negotiated: the front-end waits for it.
    const { header, payload } = (await ask({ request: "SET_VRING_NUM", index: 99, num: 1 }))!;
    assertEquals([header.id, payload[0]], [8, 1]);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    // `num` of GET_VRING_BASE is uninitialised.
    const requests: FrontendMessage[] = [
      { request: "GET_FEATURES" },
      { request: "SET_OWNER" },
      { request: "GET_VRING_BASE", index: 0, num: 0xdead_beef },
      { request: "GET_QUEUE_NUM" },
      { request: "SET_STATUS", value: 1n },
      { request: "GET_STATUS" },
    ];
    const ids: number[] = [];
    for (const message of requests) ids.push((await ask(message))!.header.id);
    assertEquals(ids, [1, 3, 11, 17, 39, 40]);
  }));

Deno.test("A disk's config space can be read in the sizes that QEMU and others use", () =>
  served(
    async (path) => {
      await using connection = await FrontendConnection.connect(path);
      await connection.setProtocolFeatures(await connection.getProtocolFeatures());
      // QEMU up to 9.0, QEMU since, libblkio's capacity, the whole space.
      for (const [offset, size] of [[0, 57], [0, 60], [0, 8], [20, 4], [0, 96]]) {
        assertEquals((await connection.getConfig(offset, size)).length, size);
      }
    },
    blk,
    { size: 2 ** 20 },
  ));
