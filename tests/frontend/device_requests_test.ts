/** vhost-user requests of a device type, which the device handles. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { defineDevice, type DeviceRequests, type DeviceServer, serve } from "../../mod.ts";
import { type CryptoSession, FrontendConnection, FrontendError } from "../../src/frontend/mod.ts";
import { createEventfd, Fd, isEventfd, watchesEnded } from "../../src/linux/mod.ts";
import { type ProtocolFeature, protocolFeatureMask } from "../../src/vhost_user/mod.ts";

/** Runs a test with a device that handles these requests, and a front-end that negotiated everything. */
async function served(
  requests: DeviceRequests | undefined,
  test: (connection: FrontendConnection, offered: bigint, server: DeviceServer) => Promise<void>,
  stopLimitMs?: number,
): Promise<void> {
  const device = defineDevice({
    name: "own",
    deviceId: 1,
    about: "Handles requests of its own",
    module: import.meta.url,
    threads: "main",
    queues: { requestq: { about: "Unused" } },
    open: () => ({ requests }),
    handlers: () => ({ queues: { requestq: () => 0 } }),
  });
  const directory = Deno.makeTempDirSync();
  const socketPath = `${directory}/s`;
  {
    await using server = await serve(device, { socketPath, stopLimitMs });
    await using connection = await FrontendConnection.connect(socketPath);
    const offered = await connection.getProtocolFeatures();
    await connection.setProtocolFeatures(offered);
    await test(connection, offered, server);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
}

const session: CryptoSession = {
  kind: "symmetric",
  opCode: 2n,
  cipherAlgorithm: 3,
  hashAlgorithm: 0,
  hashResultBytes: 0,
  additionalBytes: 0,
  operation: 1,
  direction: 1,
  hashMode: 0,
  chainOrder: 0,
  cipherKey: Uint8Array.of(1, 2, 3),
  authKey: new Uint8Array(),
  sessionId: 0n,
};

Deno.test("A device gets the requests that it handles, with their payloads", () => {
  const seen: unknown[] = [];
  return served({
    NET_SET_MTU: ({ value }) => void seen.push(value),
    SEND_RARP: ({ value }) => Promise.resolve(seen.push(value)).then(() => {}),
    CREATE_CRYPTO_SESSION(given) {
      seen.push(given.kind === "symmetric" && [...given.cipherKey]);
      return { sessionId: 7n };
    },
    CLOSE_CRYPTO_SESSION: ({ value }) => void seen.push(value),
  }, async (connection) => {
    await connection.netSetMtu(9000);
    await connection.sendRarp(0x5452_0000_0102n);
    assertEquals(await connection.createCryptoSession(session), 7n);
    await connection.closeCryptoSession(7n);
    assertEquals(seen, [9000n, 0x5452_0000_0102n, [1, 2, 3], 7n]);
  });
});

Deno.test("A device may keep the descriptor of a request; others are closed", async () => {
  const kept: Fd[] = [];
  await served({
    GPU_SET_SOCKET: (_, [fd]) => void kept.push(kept.length === 0 ? new Fd(fd.release()) : fd),
  }, async (connection) => {
    using fd = createEventfd();
    await connection.gpuSetSocket(fd);
    await connection.gpuSetSocket(fd);
    assertEquals(kept.map(({ isOpen }) => isOpen), [true, false]);
    assert(isEventfd(kept[0].number));
  });
  kept[0].close();
});

const features: [ProtocolFeature, DeviceRequests][] = [
  ["NET_MTU", { NET_SET_MTU() {} }],
  ["RARP", { SEND_RARP() {} }],
  ["CRYPTO_SESSION", { CREATE_CRYPTO_SESSION: () => ({ sessionId: 0n }) }],
];
for (const [feature, requests] of features) {
  Deno.test(`${feature} is offered only by a device that handles its request`, async () => {
    const isOffered = (offered: bigint) => (offered & protocolFeatureMask(feature)) !== 0n;
    await served(requests, (_, offered) => Promise.resolve(assert(isOffered(offered))));
    await served(undefined, (_, offered) => Promise.resolve(assert(!isOffered(offered))));
  });
}

Deno.test("A request of a device type is refused if the device does not handle it", () =>
  served({ NET_SET_MTU: undefined }, async (connection, _, server) => {
    await assertRejects(() => connection.netSetMtu(1500), FrontendError);
    assert((await connection.createCryptoSession(session)) < 0n);
    const { latest } = server.record().errors;
    assertEquals(latest.map(({ message }) => message), [
      "NET_SET_MTU is not offered",
      "CREATE_CRYPTO_SESSION is not offered",
    ]);
  }));

Deno.test("A request is refused if its handler throws, rejects or takes too long", () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  return served(
    {
      NET_SET_MTU() {
        throw new RangeError("Expected an MTU of at least 68");
      },
      SEND_RARP: () => promise,
      CREATE_CRYPTO_SESSION: ({ opCode }) =>
        opCode === 2n ? Promise.reject(new Error("Expected a key")) : undefined as never,
    },
    async (connection, _, server) => {
      await assertRejects(() => connection.netSetMtu(0), FrontendError);
      await assertRejects(() => connection.sendRarp(0n), FrontendError);
      assert((await connection.createCryptoSession(session)) < 0n);
      assert((await connection.createCryptoSession({ ...session, opCode: 3n })) < 0n);
      assertEquals(server.record().errors.latest.slice(0, 3).map(({ message }) => message), [
        "Expected an MTU of at least 68",
        "Expected SEND_RARP to be done within 0.05 s",
        "Expected a key",
      ]);
      assertEquals(await connection.getQueueNum(), 1);
      resolve();
    },
    50,
  );
});
