/** The front-end's control connection against a scripted back-end. */
import { assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import {
  backendMessages,
  FrontendConnection,
  FrontendError,
  frontendMessages,
  HEADER_BYTES,
  ProtocolError,
  protocolFeatureMask,
  SharedMemory,
} from "../../src/frontend/mod.ts";
import {
  closeAll,
  createEventfd,
  drainEventfd,
  type Fd,
  signalEventfd,
  UnixConnection,
  watchesEnded,
} from "../../src/linux/mod.ts";

/** Runs a test with a front-end's connection and the other end of its socket. */
async function withPair(
  test: (connection: FrontendConnection, backend: UnixConnection) => Promise<void>,
  timeoutMs = 60_000,
): Promise<void> {
  const [ours, theirs] = UnixConnection.pair();
  try {
    await using connection = new FrontendConnection(ours, { timeoutMs });
    await test(connection, theirs);
  } finally {
    await theirs.close();
    await watchesEnded();
  }
}

/** Reads a message with this number of payload bytes and closes its descriptors. */
async function take(backend: UnixConnection, payloadBytes: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(HEADER_BYTES + payloadBytes);
  const { fds } = await backend.receive(bytes);
  closeAll(fds);
  return bytes;
}

Deno.test("FrontendConnection sends a request and returns its reply", () =>
  withPair(async (connection, backend) => {
    const features = connection.getFeatures();
    assertEquals([...await take(backend, 0)], [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    await backend.send(frontendMessages.encodeReply("GET_FEATURES", { value: 5n << 60n }));
    assertEquals(await features, 5n << 60n);
  }));

Deno.test("FrontendConnection keeps the order of requests that overlap", () =>
  withPair(async (connection, backend) => {
    const both = Promise.all([connection.getFeatures(), connection.getProtocolFeatures()]);
    await take(backend, 0);
    await backend.send(frontendMessages.encodeReply("GET_FEATURES", { value: 1n }));
    await take(backend, 0);
    await backend.send(frontendMessages.encodeReply("GET_PROTOCOL_FEATURES", { value: 2n }));
    assertEquals(await both, [1n, 2n]);
  }));

Deno.test("FrontendConnection asks for acknowledgements only with REPLY_ACK", () =>
  withPair(async (connection, backend) => {
    await connection.setProtocolFeatures(protocolFeatureMask("REPLY_ACK"));
    assertEquals((await take(backend, 8))[4], 1);
    const owner = connection.setOwner();
    assertEquals((await take(backend, 0))[4], 1 | 8);
    await backend.send(frontendMessages.encodeAck("SET_OWNER", 0n));
    await owner;
  }));

Deno.test("FrontendConnection throws when a back-end refuses a request, and continues", () =>
  withPair(async (connection, backend) => {
    connection.protocolFeatures = protocolFeatureMask("REPLY_ACK");
    const num = assertRejects(() => connection.setVringNum(0, 3), FrontendError);
    await take(backend, 8);
    await backend.send(frontendMessages.encodeAck("SET_VRING_NUM", 1n));
    assertEquals((await num).reason, "refused");
    assertEquals((await num).message, "SET_VRING_NUM: Expected success, got error 1");
    const config = assertRejects(() => connection.getConfig(0, 4), FrontendError, "4 bytes");
    await take(backend, 16);
    await backend.send(
      frontendMessages.encodeReply("GET_CONFIG", {
        offset: 0,
        size: 0,
        flags: 0,
        data: new Uint8Array(),
      }),
    );
    assertEquals((await config).reason, "refused");
  }));

Deno.test("FrontendConnection throws and ends when no reply comes in time", () =>
  withPair(async (connection) => {
    const error = await assertRejects(() => connection.getFeatures(), FrontendError);
    assertEquals(error.reason, "timeout");
    assertEquals(error.message, "GET_FEATURES: Expected an answer within 20 ms, got none");
    const next = await assertRejects(() => connection.getFeatures(), FrontendError);
    assertEquals(next.reason, "closed");
  }, 20));

Deno.test("FrontendConnection throws when the back-end disconnects in the middle of a reply", () =>
  withPair(async (connection, backend) => {
    const features = assertRejects(
      () => connection.getFeatures(),
      ProtocolError,
      "Expected 8 payload bytes, got 3",
    );
    await take(backend, 0);
    await backend.send(frontendMessages.encodeReply("GET_FEATURES", { value: 1n }).subarray(0, 15));
    backend.shutdown();
    assertEquals((await features).scope, "stream");
  }));

Deno.test("FrontendConnection refuses a message that does not reply to its request", () =>
  withPair(async (connection, backend) => {
    const features = assertRejects(() => connection.getFeatures(), ProtocolError);
    await take(backend, 0);
    await backend.send(frontendMessages.encodeReply("GET_QUEUE_NUM", { value: 1n }));
    assertEquals((await features).scope, "stream");
  }));

Deno.test("FrontendConnection.send() and receive() carry any message", () =>
  withPair(async (connection, backend) => {
    using eventfd = createEventfd();
    const bytes = Uint8Array.of(99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
    await connection.send(bytes, [eventfd.number, eventfd.number]);
    const got = new Uint8Array(12);
    const { fds } = await backend.receive(got);
    assertEquals(got, bytes);
    assertEquals(fds.length, 2);
    closeAll(fds);
    const late = await assertRejects(() => connection.receive(10), FrontendError);
    assertEquals(late.reason, "timeout");
    await backend.send(frontendMessages.encodeAck(99, 7n));
    const message = await connection.receive();
    assertEquals([message?.header.id, message?.payload[0]], [99, 7]);
    backend.shutdown();
    assertStrictEquals(await connection.receive(), undefined);
  }));

Deno.test("FrontendConnection.setMemTable() sends every region with its file", () =>
  withPair(async (connection, backend) => {
    using memory = new SharedMemory([{ bytes: 4096, guestAddress: 0 }, { bytes: 100 }]);
    await connection.setMemTable(memory);
    const bytes = new Uint8Array(HEADER_BYTES + 8 + 64);
    const { fds } = await backend.receive(bytes);
    assertEquals(fds.length, 2);
    assertEquals(Deno.statSync(`/proc/self/fd/${fds[1].number}`).size, 100);
    closeAll(fds);
  }));

Deno.test("FrontendConnection.openBackChannel() reads and acknowledges the back-end's requests", () =>
  withPair(async (connection, backend) => {
    const seen: string[] = [];
    await using channel = await connection.openBackChannel({
      onMessage: ({ message }) => {
        seen.push(message.request);
        return message.request === "CONFIG_CHANGE_MSG" ? 0n : 3n;
      },
    });
    const { fds: [socket] } = await backend.receive(new Uint8Array(HEADER_BYTES));
    await using device = new OwnedConnection(socket);
    const timeout = await assertRejects(() => channel.next(10), FrontendError);
    assertEquals(timeout.reason, "timeout");

    await device.socket.send(backendMessages.encode({ request: "CONFIG_CHANGE_MSG" }));
    const event = await channel.next();
    assertEquals([event.message, event.needReply], [{ request: "CONFIG_CHANGE_MSG" }, false]);

    const call = { request: "VRING_CALL", index: 1, num: 0 } as const;
    await device.socket.send(backendMessages.encode(call, { needReply: true }));
    assertEquals((await take(device.socket, 8))[HEADER_BYTES], 3);
    await device.socket.send(Uint8Array.of(2, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0));
    assertEquals((await take(device.socket, 8))[HEADER_BYTES], 1);
    device.socket.shutdown();
    assertEquals((await channel.next()).message, call);
    await assertRejects(() => channel.next(), ProtocolError);
    assertEquals((await assertRejects(() => channel.next(), FrontendError)).reason, "closed");
    assertEquals(seen, ["CONFIG_CHANGE_MSG", "VRING_CALL"]);
  }));

class OwnedConnection implements AsyncDisposable {
  readonly socket: UnixConnection;
  constructor(fd: Fd) {
    this.socket = new UnixConnection(fd);
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.socket.close();
  }
}

Deno.test("FrontendConnection.setVringKick() sends a descriptor of the same eventfd, or none", () =>
  withPair(async (connection, backend) => {
    using eventfd = createEventfd();
    await connection.setVringKick(2, eventfd.number);
    const bytes = new Uint8Array(HEADER_BYTES + 8);
    const { fds: [fd] } = await backend.receive(bytes);
    assertEquals([bytes[HEADER_BYTES], bytes[HEADER_BYTES + 1]], [2, 0]);
    signalEventfd(fd.number);
    assertEquals(drainEventfd(eventfd.number), true);
    fd.close();
    await connection.setVringKick(2);
    assertEquals((await take(backend, 8))[HEADER_BYTES + 1], 1);
  }));

Deno.test("SharedMemory refuses regions that overlap, and addresses outside of one region", () => {
  assertThrows(
    () => new SharedMemory([{ bytes: 8192, guestAddress: 0 }, { bytes: 1, guestAddress: 8191 }]),
    RangeError,
  );
  assertThrows(() => new SharedMemory(0), RangeError);
  using memory = new SharedMemory([
    { bytes: 4096, guestAddress: 0 },
    { bytes: 4096, guestAddress: 4096, userAddress: 0x1000_0000 },
  ]);
  assertEquals(memory.userAddress(4100), 0x1000_0004);
  assertThrows(() => memory.at(4090, 16), RangeError);
  assertThrows(() => memory.at(8192, 1), RangeError);
  assertThrows(() => memory.alloc(4097), RangeError);
  assertThrows(() => memory.free(0), RangeError);
});
