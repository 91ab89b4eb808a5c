/**
 * Every request of the protocol, wrong in every way: each gets an unambiguous reply, or none if
 * the front-end does not wait for one, or the connection ends.
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { defineDevice, serve } from "../../mod.ts";
import { FrontendConnection, FrontendError, type RawMessage } from "../../src/frontend/mod.ts";
import { createEventfd, watchesEnded } from "../../src/linux/mod.ts";
import {
  frontendMessages,
  type FrontendReplyRequest,
  frontendRequests,
  type RequestRule,
} from "../../src/vhost_user/mod.ts";
import echo from "./lib/echo_device.ts";

/** Request numbers, unknown ones included. */
const IDS = Array.from({ length: 50 }, (_, id) => id).concat(0xffff_ffff);

const GET_FEATURES = frontendRequests.GET_FEATURES.id;

/** A message with this request number and a payload of `size` bytes of `fill`. */
function message(id: number, size: number, needReply: boolean, fill = 0): Uint8Array {
  const bytes = new Uint8Array(12 + size).fill(fill, 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, id, true);
  view.setUint32(4, needReply ? 9 : 1, true);
  view.setUint32(8, size, true);
  return bytes;
}

/** Expects that a request's own reply is distinct from the reply to success. */
function assertIsFailure(name: string, { header, payload, fds }: RawMessage): void {
  const request = name as FrontendReplyRequest;
  const decode = () =>
    frontendMessages.decodeReply(request, header, payload, fds.length) as unknown;
  const failures: Record<string, (body: Record<string, unknown>) => boolean> = {
    GET_CONFIG: ({ size }) => size === 0,
    GET_INFLIGHT_FD: ({ mmapSize }) => mmapSize === 0n && fds.length === 0,
    CREATE_CRYPTO_SESSION: ({ sessionId }) => (sessionId as bigint) < 0n,
    IOTLB_MSG: ({ value }) => value !== 0n,
    POSTCOPY_END: ({ value }) => value !== 0n,
    SET_DEVICE_STATE_FD: ({ value }) => ((value as bigint) & 0xffn) !== 0n,
    CHECK_DEVICE_STATE: ({ value }) => value !== 0n,
    POSTCOPY_ADVISE: () => fds.length === 0,
    GET_SHARED_OBJECT: () => fds.length === 0,
  };
  if (name in failures) assert(failures[name](decode() as Record<string, unknown>), name);
  else assertThrows(decode);
}

/** Ways in which messages are wrong. */
const ways: Record<string, (rule: RequestRule | undefined) => [size: number, fds: number]> = {
  "without a payload": () => [0, 0],
  "too short": () => [4, 0],
  "too long": () => [1200, 0],
  "with a descriptor": (rule) => [rule?.payload === "empty" ? 0 : 8, 1],
  "with two descriptors": () => [8, 2],
  "with descriptors and too long": () => [4096, 8],
};

for (const [way, shape] of Object.entries(ways)) {
  Deno.test(`Every request ${way} gets an unambiguous reply, or needs none`, async () => {
    const directory = Deno.makeTempDirSync();
    const socketPath = `${directory}/s`;
    {
      await using server = await serve(echo, { socketPath, plane: "main" });
      using fd = createEventfd();
      for (const id of IDS) {
        const name = frontendMessages.nameOf(id);
        const rule: RequestRule | undefined = name && frontendRequests[name];
        const [size, fds] = shape(rule);
        for (const needReply of [false, true]) {
          await using connection = await FrontendConnection.connect(socketPath);
          const protocol = await connection.getProtocolFeatures();
          await connection.setProtocolFeatures(protocol);
          const before = server.record().errors.total;
          const bytes = message(id, size, needReply, id === GET_FEATURES ? 0 : 255);
          await connection.send(bytes, Array(fds).fill(fd.number));
          await connection.send(message(GET_FEATURES, 0, false));
          const first = await connection.receive();
          const what = `${name ?? id}, ${needReply ? "with" : "without"} NEED_REPLY`;
          const isRefused = server.record().errors.total > before;
          if (!isRefused) continue; // nothing is wrong with it
          const hasReply = rule?.reply !== undefined &&
            rule.replyRequires === undefined;
          if (first === undefined) {
            assertEquals([name, needReply], [undefined, false], `${what} ended the connection`);
            continue;
          }
          if (!hasReply && !needReply) {
            assertEquals(first.header.id, GET_FEATURES, `${what}: nobody waits for an answer`);
            continue;
          }
          assertEquals([first.header.id, first.header.reply], [id, true], what);
          if (hasReply) assertIsFailure(name!, first);
          else assertEquals([first.payload.length, first.payload[0]], [8, 1], what);
          // The next request gets its own reply.
          const next = await connection.receive();
          assertEquals([next!.header.id, next!.payload.length], [GET_FEATURES, 8], what);
        }
      }
    }
    await watchesEnded();
    Deno.removeSync(directory, { recursive: true });
  });
}

Deno.test("GET_VRING_BASE of a missing queue does not return a base", async () => {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/s`;
  {
    await using _server = await serve(echo, { socketPath, plane: "main" });
    await using connection = await FrontendConnection.connect(socketPath);
    await connection.send(
      frontendMessages.encode({ request: "GET_VRING_BASE", index: 77, num: 0 }),
    );
    const { header, payload } = (await connection.receive())!;
    assertEquals([header.id, payload.length], [frontendRequests.GET_VRING_BASE.id, 0]);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});

Deno.test("SET_FEATURES that the device refuses changes nothing", async () => {
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/s`;
  const picky = defineDevice({
    name: "picky",
    deviceId: 42,
    about: "Wants to be loud",
    module: import.meta.url,
    queues: { requestq: { about: "Requests" } },
    features: { LOUD: { bit: 0, about: "Is loud" } },
    open: () => ({
      onFeatures({ LOUD }) {
        if (!LOUD) throw new RangeError("Expected LOUD");
      },
    }),
    handlers: () => ({ queues: { requestq: () => 0 } }),
  });
  {
    await using server = await serve(picky, { socketPath, plane: "main" });
    await using connection = await FrontendConnection.connect(socketPath);
    await connection.setProtocolFeatures(await connection.getProtocolFeatures());
    const features = await connection.getFeatures();
    await connection.setFeatures(features);
    await assertRejects(() => connection.setFeatures(features & ~1n), FrontendError);
    const loud = server.record().features.find(({ name }) => name === "LOUD")!;
    assertEquals(loud.acknowledged, true);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
});
