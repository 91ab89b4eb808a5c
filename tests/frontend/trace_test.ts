/** Traces of requests: their times, formats and limits. */
import { assert, assertEquals, assertGreater, assertLess, assertStringIncludes } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { BlkDriver, VirtioDriver } from "../../src/frontend/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import type { TraceStatus } from "../../src/runtime/trace/options.ts";
import { type AnyDevice, transportMask } from "../../src/virtio/mod.ts";
import { smallTmpfs } from "./lib/block_devices.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import echo, { Answer } from "./lib/echo_device.ts";

/** A device that is served, and a driver of it. */
interface SetUp {
  directory: string;
  server: DeviceServer;
  driver: VirtioDriver;
  lines: string[];
}

async function withDevice(
  device: AnyDevice,
  options: Record<string, unknown>,
  test: (setUp: SetUp) => Promise<void>,
  driverOptions: Record<string, unknown> = {},
): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-trace-" });
  const lines: string[] = [];
  try {
    const socketPath = `${directory}/device.sock`;
    const log = (line: string) => void lines.push(line);
    const plane = device === echo ? "main" : undefined; // Its timers need the event loop
    await using server = await serve(device, { socketPath, options, log, plane });
    await using driver = await VirtioDriver.start(socketPath, driverOptions);
    await test({ directory, server, driver, lines });
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const onMemory = (test: (setUp: SetUp) => Promise<void>, driverOptions = {}) =>
  withDevice(blk, { size: 2 ** 20, numQueues: 2 }, test, { queues: 2, ...driverOptions });

/** Makes requests of three kinds, `count` each, many at a time, on two queues. */
async function load(driver: VirtioDriver, count: number): Promise<void> {
  const disk = new BlkDriver(driver);
  for (let left = count; left > 0; left -= 16) {
    await Promise.all(
      Array.from({ length: Math.min(left, 16) }, (_, i) => [
        disk.read(i * 8, 4096, { queue: i & 1 }),
        disk.write(i * 8, new Uint8Array(4096), { queue: i & 1 }),
        disk.flush({ queue: i & 1 }),
      ]).flat(),
    );
  }
}

/** An event of Chrome's format. */
interface ChromeEvent {
  ph: string;
  id: number;
  tid: number;
  name: string;
  ts: number;
  args?: { queue: number; bytes: number };
}

/** The requests in a trace, each with its events in order, after checks that hold for every one. */
function requestsIn(text: string): ChromeEvent[][] {
  const { traceEvents } = JSON.parse(text) as { traceEvents: ChromeEvent[] };
  const requests = Map.groupBy(traceEvents.filter(({ ph }) => ph !== "M"), ({ id }) => id);
  for (const events of requests.values()) {
    const open: string[] = [];
    let last = -Infinity;
    for (const { ph, name, ts } of events) {
      assert(ts >= last, `${name} at ${ts} after ${last}`);
      last = ts;
      if (ph === "b") open.push(name);
      else assertEquals([ph, open.pop()], ["e", name]);
    }
    assertEquals(open, []);
  }
  return [...requests.values()];
}

for (
  const [name, options] of Object.entries({
    split: {},
    packed: { features: transportMask("VERSION_1", "RING_PACKED") },
    "in order": { features: transportMask("VERSION_1", "IN_ORDER") },
  })
) {
  Deno.test(`a trace has each request with times in their order (${name})`, () =>
    onMemory(async ({ directory, server, driver }) => {
      const file = `${directory}/trace.json`;
      await load(driver, 3);
      await server.host.tracing.start({ file, every: 1 });
      while (server.host.tracing.status.requests === 0) await load(driver, 1);
      const before = server.record().queues.reduce((sum, { requests }) => sum + requests, 0);
      const traced = server.host.tracing.status.requests!;
      await load(driver, 100);
      const status = await server.host.tracing.stop();
      assertEquals([status.state, status.lost, status.every], ["off", 0, 1]);
      assertEquals(status.bytes, (await Deno.stat(file)).size);
      const requests = requestsIn(await Deno.readTextFile(file));
      assertEquals(requests.length, status.requests);
      assert(requests.length >= traced + 300 && requests.length <= before + 300);
      const kinds = new Set(requests.map(([{ name }]) => name));
      assertEquals([...kinds].sort(), ["flush", "read", "write"]);
      assertEquals(new Set(requests.map(([{ args }]) => args!.queue)), new Set([0, 1]));
      const [read] = requests.filter(([{ name }]) => name === "read");
      assertEquals(read[0].args!.bytes, 16 + 4096 + 1);
      assert(requests.some((events) => events.some(({ name }) => name === "kicked")));
      const [queue] = server.record().queues;
      assertEquals(queue.latencies.map(({ kind }) => kind), ["read", "write", "flush"]);
    }, options));
}

Deno.test("a trace has requests that are completed now, later and by promises, and buffers", () =>
  withDevice(echo, {}, async ({ directory, server, driver }) => {
    const file = `${directory}/trace.jsonl`;
    const { tracing } = server.host;
    await tracing.start({ file, every: 1 });
    const request = (answer: number) => driver.request(0, [Uint8Array.of(answer, 1)], [2]);
    while (tracing.status.requests === 0) await request(Answer.LATER);
    const event = driver.request(1, [], [1]);
    await Promise.all([Answer.PROMISED, Answer.LATER, Answer.NOW].map(request));
    await event;
    await tracing.stop();
    const spans = spansIn(await Deno.readTextFile(file));
    assert(spans.some(({ name, attributes }) => name === "echo request" && attributes[0] === "1"));
    for (const { startTimeUnixNano, endTimeUnixNano, events, traceId, spanId } of spans) {
      const names = events.map(({ name }) => name);
      assertEquals(names.slice(0, 4), ["take", "submit", "complete", "publish"]);
      const times = [
        startTimeUnixNano,
        ...events.map(({ timeUnixNano }) => timeUnixNano),
        endTimeUnixNano,
      ].map(BigInt);
      assertEquals(times, times.toSorted((a, b) => Number(a - b)));
      assertLess(Math.abs(Number(times[0] / 1_000_000n) - Date.now()), 60_000);
      assert(/^[0-9a-f]{32}$/.test(traceId) && /^[0-9a-f]{16}$/.test(spanId));
    }
    assertEquals(new Set(spans.map(({ spanId }) => spanId)).size, spans.length);
  }, { queues: 2 }));

/** A span of OpenTelemetry. */
interface OtlpSpan {
  name: string;
  traceId: string;
  spanId: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: string[];
  events: { name: string; timeUnixNano: string }[];
}

/** The spans of export requests, one per line. */
function spansIn(lines: string): OtlpSpan[] {
  return lines.trimEnd().split("\n").flatMap((line) => {
    const { resourceSpans: [{ scopeSpans: [{ spans }] }] } = JSON.parse(line);
    // deno-lint-ignore no-explicit-any
    return spans.map((span: any) => ({
      ...span,
      // deno-lint-ignore no-explicit-any
      attributes: span.attributes.map(({ value }: any) => value.intValue ?? value.stringValue),
    }));
  });
}

Deno.test("a trace is switched on and off again and again under load", () =>
  onMemory(async ({ directory, server, driver }) => {
    const { tracing } = server.host;
    let isDone = false;
    const loaded = (async () => {
      while (!isDone) await load(driver, 16);
    })();
    for (let i = 0; i < 5; i++) {
      const file = `${directory}/trace-${i}.json`;
      await tracing.start({ file, every: 1 + i });
      while (tracing.status.requests! < 50) await load(driver, 1);
      const { state, requests } = await tracing.stop();
      assertEquals(state, "off");
      assertEquals(requestsIn(await Deno.readTextFile(file)).length, requests);
    }
    isDone = true;
    await loaded;
  }));

Deno.test("a trace ends by itself where its file would be too large", () =>
  onMemory(async ({ directory, server, driver, lines }) => {
    const { tracing } = server.host;
    for (const [name, check] of [["a.json", requestsIn], ["b.jsonl", spansIn]] as const) {
      const file = `${directory}/${name}`;
      await tracing.start({ file, every: 1, maxBytes: 65_536 });
      while (tracing.status.state === "on") await load(driver, 16);
      const status = await tracing.stop();
      assertEquals(status.state, "full");
      assertEquals(lines.splice(0), [`${file} is full; the trace into it has ended`]);
      const text = await Deno.readTextFile(file);
      assertEquals(check(text).length, status.requests);
      assertEquals([text.length <= 65_536, text.length > 50_000], [true, true]);
    }
    await load(driver, 1);
  }));

Deno.test("a trace says that its disk is full, and requests go on", () =>
  onMemory(async ({ server, driver, lines }) => {
    if (Deno.uid() !== 0) return console.log("skipped: a small tmpfs needs root");
    using small = smallTmpfs("64k");
    const { tracing } = server.host;
    await tracing.start({ file: `${small.path}/trace.json`, every: 1 });
    while (tracing.status.state === "on") await load(driver, 16);
    const status = await tracing.stop();
    assertEquals([status.state, lines.length], ["failed", 1]);
    assertStringIncludes(lines[0], "ENOSPC");
    await load(driver, 16);
  }));

Deno.test("a trace goes to a collector, and goes on while there is none", () =>
  onMemory(async ({ server, driver, lines }) => {
    const { tracing } = server.host;
    const bodies: string[] = [];
    let answer = 200;
    const first = Promise.withResolvers<void>();
    const collector = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen() {} },
      async (request) => {
        bodies.push(await request.text());
        first.resolve();
        return new Response("{}", { status: answer });
      },
    );
    const otlp = `http://127.0.0.1:${collector.addr.port}/v1/traces`;
    const withKey = otlp.replace("//", "//user:secret@") + "?key=secret";
    assertEquals((await tracing.start({ otlp: withKey, every: 1 })).otlp, otlp);
    while (bodies.length === 0) await load(driver, 1);
    await first.promise;
    answer = 503;
    while (tracing.status.error === undefined) await load(driver, 1);
    const status = await tracing.stop();
    await collector.shutdown();
    assertEquals([status.state, status.error], ["off", "status 503"]);
    assertGreater(status.lost!, 0);
    assertEquals(lines, [`${otlp} takes no spans: status 503; they are lost`]);
    assertEquals(spansIn(bodies[0])[0].name.startsWith("blk "), true);
    await tracing.start({ otlp: withKey, every: 1 });
    while (tracing.status.error === undefined) await load(driver, 1);
    await tracing.stop();
    assertStringIncludes(lines[1], `${otlp} takes no spans: `);
    assertStringIncludes(lines[1], "Connection refused");
  }));

Deno.test("POST /trace begins and ends a trace, and says what is wrong with a body", () =>
  onMemory(async ({ directory, server, driver }) => {
    const path = `${directory}/control.sock`;
    await using _control = new ControlSocket(server.host, path);
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    const send = async (method: string, body?: unknown): Promise<[number, TraceStatus]> => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const response = await fetch("http://vhostd/trace", { client, method, body: text });
      return [response.status, await response.json()];
    };
    assertEquals(await send("GET"), [200, { state: "off" }]);
    const wrong: [body: unknown, error: string][] = [
      [undefined, 'Expected one of "file" and "otlp", such as {"file": "/tmp/trace.json"}'],
      [[], 'Expected one of "file" and "otlp", such as {"file": "/tmp/trace.json"}'],
      [{ file: "trace.json" }, 'Expected an absolute path as "file", got "trace.json"'],
      [{ file: 7 }, 'Expected a path as "file", got 7'],
      [{ file: { startsWith: 7 } }, 'Expected a path as "file", got {"startsWith":7}'],
      [{ file: "/a", otlp: "http://a" }, 'Expected one of "file" and "otlp"'],
      [{ otlp: "ftp://a" }, 'Expected an http URL as "otlp", got "ftp://a"'],
      [{ file: "/a", every: 0 }, 'Expected a whole number from 1 to 1048576 as "every", got 0'],
      [{ file: "/a", maxBytes: 1 }, 'as "maxBytes", got 1'],
      [{ file: "/a", rate: 1 }, "Expected file, otlp, every, maxBytes or stop, got rate"],
      [{ stop: 1 }, 'Expected "stop" to be true and alone'],
      [{ file: `${directory}/none/a` }, "Cannot write the trace: "],
      [{ file: directory }, "Cannot write the trace: "],
    ];
    for (const [body, expected] of wrong) {
      const [status, { error }] = await send("POST", body);
      assertEquals([status, error!.split("\n").length], [400, 1], JSON.stringify(body));
      assertStringIncludes(error!, expected);
    }
    const file = `${directory}/trace.json`;
    assertEquals((await send("POST", { file, every: 1 }))[1].state, "on");
    const [status, { error }] = await send("POST", { file });
    assertEquals([status, error], [400, `A trace runs already, into ${file}`]);
    while ((await send("GET"))[1].requests === 0) await load(driver, 1);
    const [, ended] = await send("POST", { stop: true });
    assertEquals([ended.state, ended.file], ["off", file]);
    assertEquals(requestsIn(await Deno.readTextFile(file)).length, ended.requests);
    assertEquals((await send("POST", { stop: true }))[1].state, "off");
  }));

Deno.test("--trace begins a trace with the device, also of instances; wrong flags are one line", async () => {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-trace-" });
  try {
    const socket = `${directory}/rng.sock`, file = `${directory}/trace.json`;
    {
      await using rng = new CliProcess([
        "rng",
        `--socket-path=${socket}`,
        `--trace=${file}`,
        "--trace-every=1",
      ]);
      await rng.until("listens on");
      await using driver = await VirtioDriver.start(socket);
      while ((await Deno.stat(file)).size < 1000) await driver.request(0, [], [64]);
    }
    const ports = ["a", "b"].map((name) => `--port=${directory}/${name}.sock`);
    {
      await using ports_ = new CliProcess(["switch", ...ports, `--trace=${file}`]);
      await ports_.until("listens on");
      await ports_.until("listens on");
      for (const name of ["a", "b"]) await Deno.stat(`${directory}/trace-${name}.json`);
    }
    const wrong: [flags: string[], why: string][] = [
      [["--trace-every=3"], "--trace-every has no effect without --trace or --otlp"],
      [["--trace-max=1M"], "--trace-max has no effect without --trace"],
      [["--trace=/a", "--otlp=http://a"], "Expected one of --trace and --otlp, got both"],
      [
        ["--otlp=nowhere"],
        '--otlp takes a URL such as http://localhost:4318/v1/traces, got "nowhere"',
      ],
      [[`--trace=${directory}/none/a`], "--trace: Cannot write the trace"],
    ];
    await Promise.all(wrong.map(async ([flags, why], i) => {
      const path = `${directory}/wrong-${i}.sock`;
      const { status, stderr } = await runCli(["rng", `--socket-path=${path}`, ...flags]);
      assertEquals([status, stderr.split("\n").length], [2, 2], stderr);
      assertStringIncludes(stderr, why);
      await Deno.stat(path).then(() => assert(false, "stale socket"), () => {});
    }));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
