/**
 * What front-ends in the wild do that breaks the letter of the protocol, and
 * works all the same: the table "Lenient" of ARCHITECTURE.md.
 */
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

Deno.test("Rings may be enabled before there are features, memory and rings", () =>
  served(async (path) => {
    await using driver = await VirtioDriver.connect(path, { queues: [16, 16] });
    for (const queue of [0, 1]) await driver.connection.setVringEnable(queue, true);
    await driver.restart();
    await works(driver);
  }));

Deno.test("The same call descriptor may be given again and again, or none", () =>
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

Deno.test("REM_MEM_REG may have a descriptor", () =>
  served(async (path) => {
    await using driver = await VirtioDriver.start(path, { queues: [16, 16] });
    const [{ message, fd }] = driver.memory.regions;
    await driver.connection.tell({ request: "REM_MEM_REG", region: message }, [fd.number]);
    await driver.connection.tell({ request: "ADD_MEM_REG", region: message }, [fd.number]);
    await works(driver);
  }));

Deno.test("NEED_REPLY may be set on everything: there is one answer to each request", () =>
  served(async (path) => {
    await using connection = await FrontendConnection.connect(path);
    const ask = async (message: FrontendMessage) => {
      await connection.send(frontendMessages.encode(message, { needReply: true }));
      return await connection.receive();
    };
    // Before REPLY_ACK is negotiated a failure is told all the same, as somebody waits for it.
    const { header, payload } = (await ask({ request: "SET_VRING_NUM", index: 99, num: 1 }))!;
    assertEquals([header.id, payload[0]], [8, 1]);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    // `num` of GET_VRING_BASE is what was there.
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

Deno.test("A disk's config space is read in the sizes that QEMU and others read", () =>
  served(
    async (path) => {
      await using connection = await FrontendConnection.connect(path);
      await connection.setProtocolFeatures(await connection.getProtocolFeatures());
      // QEMU by 9.0, QEMU since, libblkio's capacity, all of it.
      for (const [offset, size] of [[0, 57], [0, 60], [0, 8], [20, 4], [0, 96]]) {
        assertEquals((await connection.getConfig(offset, size)).length, size);
      }
    },
    blk,
    { size: 2 ** 20 },
  ));
