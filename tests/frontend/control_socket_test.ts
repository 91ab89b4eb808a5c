import { assertEquals, assertStringIncludes } from "@std/assert";
import { UnixConnection, watchesEnded } from "../../src/linux/mod.ts";
import {
  ControlSocket,
  MAX_CONTROL_BODY_BYTES,
  MAX_CONTROL_PEERS,
  MAX_CONTROL_REQUESTS,
  MAX_CONTROL_STREAMS,
} from "../../src/runtime/control_socket.ts";
import { DeviceHost } from "../../src/runtime/mod.ts";
import { linesOf } from "../../src/web/lines.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { defineDevice, type DeviceCommand } from "../../src/virtio/mod.ts";

/** A device with commands, its control socket, and an HTTP client for it. */
async function opened(
  commands: Record<string, DeviceCommand>,
  report?: () => Record<string, unknown>,
): Promise<{ path: string; request: typeof request } & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  stack.defer(watchesEnded);
  const directory = Deno.makeTempDirSync({ prefix: "vhostd-control-" });
  stack.defer(() => Deno.removeSync(directory, { recursive: true }));
  const device = defineDevice({
    name: "test",
    deviceId: 42,
    about: "For tests",
    module: import.meta.url,
    threads: "main",
    queues: { q: { about: "Requests" } },
    open: () => ({ commands, report }),
    handlers: () => ({ queues: { q: () => 0 } }),
  });
  const host = stack.use(await DeviceHost.open(device));
  const path = `${directory}/control.sock`;
  stack.use(new ControlSocket(host, path));
  const client = stack.use(Deno.createHttpClient({ proxy: { transport: "unix", path } }));
  async function request(
    method: string,
    path: string,
    body?: BodyInit,
  ): Promise<[status: number, answer: Record<string, unknown>]> {
    const response = await fetch(`http://vhostd${path}`, { client, method, body });
    return [response.status, await response.json()];
  }
  const resources = stack.move();
  return { path, request, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

const commands: Record<string, DeviceCommand> = {
  echo: { about: "Answers what it is given", run: (body) => ({ body, given: body !== undefined }) },
  nothing: { about: "Answers nothing", run: async () => {} },
  refuse: {
    about: "Takes nothing",
    run() {
      throw new RangeError("Expected less");
    },
  },
  fail: { about: "Fails", run: () => Promise.reject(new Error("The disk is gone")) },
};

Deno.test("GET / lists the requests", async () => {
  await using control = await opened(commands);
  const [status, { device, requests }] = await control.request("GET", "/");
  assertEquals(status, 200);
  assertEquals(device, { name: "test", id: 42, about: "For tests" });
  assertEquals((requests as { path: string }[]).map(({ path }) => path), [
    "/record",
    "/changes",
    "/wire",
    "/trace",
    "/trace",
    "/metrics",
    "/echo",
    "/nothing",
    "/refuse",
    "/fail",
  ]);
});

Deno.test("GET /record returns the record", async () => {
  await using control = await opened({});
  const [status, record] = await control.request("GET", "/record");
  assertEquals([status, record.version], [200, 1]);
});

Deno.test("POST /traced adds what a watch traced to the record, and refuses another watch", async () => {
  await using control = await opened({});
  const post = (batch: unknown) => control.request("POST", "/traced", JSON.stringify(batch));
  const status = { access: "write", register: "device_status", value: "0xb" } as const;
  const access = { ...status, at: Date.now(), offset: 0, bytes: 1, index: null, count: 1 };
  assertEquals(await post({ watch: "a", whole: true, accesses: [access] }), [200, {}]);
  const [, record] = await control.request("GET", "/record");
  const { traced, status: { timeline, source } } = record as unknown as RecordJson;
  assertEquals(traced?.timeline.latest, [{ ...access, source: "traced" }]);
  assertEquals([source, timeline.at(-1)?.names], ["traced", [
    ...["ACKNOWLEDGE", "DRIVER", "FEATURES_OK"],
  ]]);
  assertEquals(await post({ watch: "b" }), [400, {
    error: "Expected no other watch, but one is attached already; end it first",
  }]);
  assertEquals((await post({ watch: "a", accesses: [{ ...access, bytes: 9 }] }))[0], 400);
  assertEquals((await control.request("GET", "/traced"))[0], 405);
});

Deno.test("POST /NAME runs a command, with a JSON body or none", async () => {
  await using control = await opened(commands);
  assertEquals(await control.request("POST", "/echo", '{"a":[1]}'), [
    200,
    { body: { a: [1] }, given: true },
  ]);
  assertEquals(await control.request("POST", "/echo"), [200, { given: false }]);
  assertEquals(await control.request("POST", "/nothing"), [200, {}]);
});

Deno.test("a command that refuses its body returns 400, and one that fails 500", async () => {
  await using control = await opened(commands);
  assertEquals(await control.request("POST", "/refuse"), [400, { error: "Expected less" }]);
  assertEquals(await control.request("POST", "/fail"), [500, { error: "The disk is gone" }]);
});

Deno.test("invalid requests return the right status", async () => {
  await using control = await opened(commands);
  for (
    const [method, path, body, status, error] of [
      ["GET", "/none", undefined, 404, "There is no /none"],
      ["POST", "/toString", undefined, 404, "There is no /toString"],
      ["GET", "/echo", undefined, 405, "Expected POST, got GET"],
      ["POST", "/record", undefined, 405, "Expected GET, got POST"],
      ["DELETE", "/", undefined, 405, "Expected GET, got DELETE"],
      ["POST", "/echo", "{", 400, "Expected JSON or no body"],
      ["POST", "/echo", Uint8Array.of(0x22, 0xff, 0x22), 400, "Expected JSON or no body"],
      ["POST", "/echo", " ".repeat(MAX_CONTROL_BODY_BYTES + 1), 413, "at most 1048576 bytes"],
    ] as const
  ) {
    const [got, answer] = await control.request(method, path, body);
    assertEquals(got, status, `${method} ${path}`);
    assertStringIncludes(String(answer.error), error);
  }
  const largest = `"${"x".repeat(MAX_CONTROL_BODY_BYTES - 2)}"`;
  assertEquals((await control.request("POST", "/echo", largest))[0], 200);
});

Deno.test("ControlSocket handles a limited number of requests at a time, and refuses one more", async () => {
  const running = Array.from({ length: MAX_CONTROL_REQUESTS }, () => Promise.withResolvers<void>());
  const release = Promise.withResolvers<void>();
  let started = 0;
  await using control = await opened({
    wait: { about: "Waits", run: () => (running[started++].resolve(), release.promise) },
  });
  const requests = running.map(() => control.request("POST", "/wait"));
  await Promise.all(running.map(({ promise }) => promise));
  const [status, { error }] = await control.request("GET", "/record");
  assertEquals([status, error], [503, "Expected at most 16 requests at a time; try again"]);
  release.resolve();
  for (const request of requests) assertEquals(await request, [200, {}]);
  assertEquals((await control.request("GET", "/record"))[0], 200);
});

Deno.test("ControlSocket closes while requests are pending", async () => {
  const running = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let started = 0;
  const never = new Promise<never>(() => {});
  const control = await opened({
    wait: { about: "Never ends", run: () => (running[started++].resolve(), never) },
  });
  const requests = running.map(() => control.request("POST", "/wait"));
  await Promise.all(running.map(({ promise }) => promise));
  await control[Symbol.asyncDispose]();
  for (const request of requests) assertEquals(await request, [503, { error: "The device ends" }]);
});

Deno.test("ControlSocket serves a limited number of connections at a time, and the next when one ends", async () => {
  await using control = await opened(commands);
  const connections = Array.from(
    { length: MAX_CONTROL_PEERS },
    () => UnixConnection.connect(control.path),
  );
  const ask = async (connection: UnixConnection) => {
    await connection.send(new TextEncoder().encode("GET / HTTP/1.1\r\nhost: vhostd\r\n\r\n"));
    const answer = new Uint8Array(15);
    assertEquals((await connection.receive(answer)).bytes, 15);
    assertEquals(new TextDecoder().decode(answer), "HTTP/1.1 200 OK");
  };
  const waiting = UnixConnection.connect(control.path);
  const order: string[] = [];
  await Promise.all([
    ask(waiting).then(() => order.push("one more")),
    ask(connections[0]).then(() => order.push("first")),
  ]);
  assertEquals(order, ["first", "one more"]);
  for (const connection of [...connections, waiting]) await connection.close();
});

Deno.test("clients that do not read endless answers keep others from those only", async () => {
  await using control = await opened(commands);
  const ask = async (target: string) => {
    const connection = UnixConnection.connect(control.path);
    await connection.send(new TextEncoder().encode(`GET ${target} HTTP/1.1\r\n\r\n`));
    const answer = new Uint8Array(12);
    await connection.receive(answer);
    return { connection, status: new TextDecoder().decode(answer).slice(-3) };
  };
  const streams: UnixConnection[] = [];
  while (streams.length < MAX_CONTROL_STREAMS) {
    const { connection, status } = await ask(streams.length % 2 ? "/wire" : "/changes");
    assertEquals(status, "200");
    streams.push(connection);
  }
  const refused = await ask("/changes");
  assertEquals(refused.status, "503");
  assertEquals((await control.request("GET", "/record"))[0], 200);
  await streams[0].close();
  for (let status = "503"; status !== "200";) {
    const next = await ask("/wire");
    status = next.status;
    await next.connection.close();
  }
  for (const connection of [...streams.slice(1), refused.connection]) await connection.close();
});

Deno.test("ControlSocket closes connections that are idle or send part of a request", async () => {
  const control = await opened(commands);
  const silent = UnixConnection.connect(control.path);
  const half = UnixConnection.connect(control.path);
  await half.send(new TextEncoder().encode("POST /echo HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"));
  await control.request("GET", "/");
  await control[Symbol.asyncDispose]();
  for (const connection of [silent, half]) {
    const rest = new Uint8Array(4096);
    await connection.receive(rest);
    await connection.close();
  }
  await watchesEnded();
});

Deno.test("GET /changes sends the state, then what changes, until the client is gone", async () => {
  let level = 1;
  await using control = await opened({
    raise: { about: "Raises the level", run: () => ({ level: ++level }) },
  }, () => ({ level }));
  using client = Deno.createHttpClient({ proxy: { transport: "unix", path: control.path } });
  const { body } = await fetch("http://vhostd/changes", { client });
  const lines = linesOf(body!);
  const first = JSON.parse((await lines.next()).value);
  assertEquals([first.record.device.name, first.record.report, first.config], ["test", {
    level: 1,
  }, ""]);
  await control.request("POST", "/raise");
  for await (const line of lines) {
    // Without news, lines say the time
    const changes = JSON.parse(line) as unknown[][];
    const news = changes.filter((path) => !path.includes("cpuSeconds") && path[1] !== "at");
    if (news.length === 0) continue;
    assertEquals(news, [["record", "report", "level", 2]]);
    break;
  }
});
