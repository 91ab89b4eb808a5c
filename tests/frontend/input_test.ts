import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import input from "../../backends/input/mod.ts";
import { encodeInputEvents, EvdevDevice } from "../../backends/input/evdev.ts";
import { decodeEvent, encodeEvent, type InputEvent } from "../../backends/input/events.ts";
import { profileModel } from "../../backends/input/profiles.ts";
import { type DeviceServer, serve } from "../../mod.ts";
import { FrontendError, VirtioDriver } from "../../src/frontend/mod.ts";
import { openFile, watch } from "../../src/linux/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";

const EVENTQ = 0;
const STATUSQ = 1;

/** The queue sizes of QEMU's vhost-user-input. */
const QUEUES = [4, 4];

/** A served device and a driver for it. */
class Setup implements AsyncDisposable {
  readonly server: DeviceServer;
  readonly driver: VirtioDriver;
  readonly #made: AsyncDisposableStack;

  private constructor(server: DeviceServer, driver: VirtioDriver, made: AsyncDisposableStack) {
    this.server = server;
    this.driver = driver;
    this.#made = made;
  }

  static async create(options: Record<string, unknown> = {}): Promise<Setup> {
    await using made = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir();
    made.defer(() => Deno.remove(directory, { recursive: true }));
    const path = `${directory}/input.sock`;
    const server = made.use(await serve(input, { socketPath: path, options }));
    const driver = made.use(
      await VirtioDriver.start(path, { queues: QUEUES }),
    );
    return new Setup(server, driver, made.move());
  }

  // deno-lint-ignore no-explicit-any
  get report(): any {
    return this.server.record().report;
  }

  /** POST /events. */
  send(json: unknown): unknown {
    return this.server.host.control.commands!.events.run(json);
  }

  /** Supplies a buffer for each of `count` events, and waits for them. */
  async receive(count: number): Promise<number[][]> {
    const results = await Promise.all(
      Array.from({ length: count }, () => this.driver.request(EVENTQ, [], [8])),
    );
    return results.map(({ written, data: [bytes] }) => {
      assertEquals(written, 8);
      const { type, code, value } = decodeEvent(new DataView(bytes.buffer));
      return [type, code, value];
    });
  }

  async sendStatus(event: InputEvent): Promise<void> {
    const bytes = new Uint8Array(8);
    encodeEvent(event, new DataView(bytes.buffer));
    assertEquals((await this.driver.request(STATUSQ, [bytes], [])).written, 0);
  }

  /** Reads a selection as Linux does: select, subsel, then size, then the answer byte by byte. */
  async ask(select: number, subsel: number): Promise<number[]> {
    const { config } = this.driver;
    await config.write(0, Uint8Array.of(select));
    await config.write(1, Uint8Array.of(subsel));
    const size = await config.u8(2);
    const answer: number[] = [];
    for (let i = 0; i < size; i++) answer.push(await config.u8(8 + i));
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#made.disposeAsync();
  }
}

const SYN = [0, 0, 0];

Deno.test("the driver reads the device's answers by selection, and the report lists the selections", async () => {
  await using setup = await Setup.create({ profile: "tablet", name: "Pen", serial: "7" });
  assertEquals(await setup.ask(0x01, 0), [0x50, 0x65, 0x6e]);
  assertEquals(await setup.ask(0x02, 0), [0x37]);
  assertEquals(await setup.ask(0x03, 0), [6, 0, 0, 0, 3, 0, 1, 0]);
  assertEquals(await setup.ask(0x11, 3), [3]);
  assertEquals((await setup.ask(0x12, 1)).slice(0, 8), [0, 0, 0, 0, 0xff, 0x7f, 0, 0]);
  assertEquals(await setup.ask(0x11, 4), []);
  assertEquals(await setup.ask(0x01, 0), [0x50, 0x65, 0x6e]);
  const { selections } = setup.report;
  assertEquals(
    selections.map(({ name, size, count }: Record<string, unknown>) => [name, size, count]),
    [
      ["ID_NAME", 3, 2],
      ["ID_SERIAL", 1, 1],
      ["ID_DEVIDS", 8, 1],
      ["EV_BITS EV_ABS", 1, 1],
      ["ABS_INFO ABS_Y", 20, 1],
      ["EV_BITS EV_MSC", 0, 1],
    ],
  );
  assert(selections[0].first < selections[0].last || selections[0].first > Date.now() - 60_000);
});

Deno.test("the driver reads the device's answers through QEMU, which transfers the whole space", async () => {
  await using setup = await Setup.create({ profile: "mouse" });
  const { config } = setup.driver;
  const space = await config.read(0, 136);
  const write = async (offset: number, value: number) => {
    space[offset] = value;
    await config.write(0, space); // the rest is stale
  };
  for (const [subsel, size] of [[1, 35], [2, 2], [3, 0]]) {
    await write(0, 0x11);
    await write(1, subsel);
    space.set(await config.read(0, 136));
    assertEquals([...space.subarray(0, 3)], [0x11, subsel, size]);
    assertEquals([...space.subarray(8 + size)].some((byte) => byte !== 0), false);
  }
  assertEquals(
    setup.report.selections.map(({ name }: { name: string }) => name),
    ["EV_BITS EV_KEY", "EV_BITS EV_REL", "EV_BITS EV_ABS"],
  );
  assertEquals(setup.server.record().errors.total, 0);
});

Deno.test("a write to the answer is refused and changes nothing", async () => {
  await using setup = await Setup.create();
  assertEquals((await setup.ask(0x11, 0x11)).length, 1);
  await assertRejects(() => setup.driver.config.write(2, Uint8Array.of(9)), FrontendError);
  assertEquals([...await setup.driver.config.read(0, 9)], [0x11, 0x11, 1, 0, 0, 0, 0, 0, 7]);
});

Deno.test("a key press arrives as events", async () => {
  await using setup = await Setup.create();
  const events = setup.receive(4);
  setup.send({ key: "a" });
  assertEquals(await events, [[1, 30, 1], SYN, [1, 30, 0], SYN]);
  const { accepted, delivered, waiting } = setup.report.events;
  assertEquals([accepted, delivered, waiting], [4, 4, 0]);
});

Deno.test("events wait for buffers, also more than the ring has", async () => {
  await using setup = await Setup.create();
  setup.send({ text: "Ab" });
  assertEquals(setup.report.events.waiting, 12);
  const got = await setup.receive(12);
  assertEquals(got.filter(([type]) => type === 1), [
    [1, 42, 1],
    [1, 30, 1],
    [1, 30, 0],
    [1, 42, 0],
    [1, 48, 1],
    [1, 48, 0],
  ]);
  assertEquals(setup.report.events.waiting, 0);
});

Deno.test("events while no driver runs reach none, except keys that are still down", async () => {
  await using setup = await Setup.create();
  const { driver } = setup;
  const absences: [string, () => Promise<unknown>, () => Promise<void>][] = [
    ["the ring is stopped", () => driver.stop(), () => driver.restart()],
    ["the device is reset", () => driver.reset(), () => driver.restart()],
    ["the front-end is gone", () => driver.disconnect(), () => driver.reconnect()],
    ["the ring is disabled", () => enable(setup, false), () => enable(setup, true)],
  ];
  for (const [i, [what, leave, come]] of absences.entries()) {
    const { dropped } = setup.report.events;
    setup.send({ text: "to be dropped" }); // no buffers: it waits
    await leave();
    if (what === "the front-end is gone") await setup.server.idle();
    setup.send([{ text: "secret\n" }, { key: "leftshift", value: 1 }]);
    assertEquals(setup.report.events.waiting, 0, what);
    assert(setup.report.events.dropped >= dropped + 30, what);
    await come();
    setup.send({ key: "b" });
    const got = (await setup.receive(6)).filter(([type]) => type === 1);
    assertEquals(got, [[1, 42, 1], [1, 48, 1], [1, 48, 0]], `${i}: ${what}`);
    setup.send({ key: "leftshift", value: 0 });
    assertEquals((await setup.receive(2))[0], [1, 42, 0]);
  }
});

async function enable({ driver }: Setup, isEnabled: boolean): Promise<void> {
  await driver.connection.tell({
    request: "SET_VRING_ENABLE",
    index: EVENTQ,
    num: isEnabled ? 1 : 0,
  });
  await driver.connection.getFeatures();
}

Deno.test("too many events without buffers drop the oldest, and count them", async () => {
  await using setup = await Setup.create({ profile: "mouse" });
  for (let i = 1; i <= 1500; i++) setup.send({ move: [i, 0] });
  const { accepted, waiting, dropped, droppedGroups } = setup.report.events;
  assertEquals([accepted, waiting, dropped, droppedGroups], [4500, 4095, 405, 135]);
  assertEquals(await setup.receive(3), [[2, 0, 136], [2, 1, 0], SYN]);
});

Deno.test("a bad event is refused, and nothing of its message is sent", async () => {
  await using setup = await Setup.create();
  assertThrows(() => setup.send([{ key: "a" }, { key: 1 }]), TypeError, "Event 1");
  assertThrows(() => setup.send([{ key: "a" }, { move: [1, 1] }]), RangeError, "keyboard");
  assertEquals(setup.report.events.accepted, 0);
  setup.send({ key: "a" });
  assertEquals((await setup.receive(1))[0], [1, 30, 1]);
});

Deno.test("LEDs of the guest are in the report", async () => {
  await using setup = await Setup.create();
  await setup.sendStatus({ type: 0x11, code: 1, value: 1 });
  await setup.sendStatus({ type: 0x11, code: 0, value: 1 });
  await setup.sendStatus({ type: 0x11, code: 0, value: 0 });
  await setup.sendStatus({ type: 0x7, code: 0, value: 0 });
  assertEquals(setup.report.leds, { LED_NUML: false, LED_CAPSL: true, LED_SCROLLL: false });
  assertEquals(
    setup.report.status.map(({ name, value, count }: Record<string, unknown>) => [
      name,
      value,
      count,
    ]),
    [["EV_LED LED_CAPSL", 1, 1], ["EV_LED LED_NUML", 0, 2]],
  );
  assertEquals(setup.report.otherStatus, 1);
});

Deno.test("a reset drops events, LEDs and the selection, and keeps the record", async () => {
  await using setup = await Setup.create();
  await setup.ask(0x01, 0);
  await setup.sendStatus({ type: 0x11, code: 1, value: 1 });
  setup.send({ key: "a" });
  await setup.driver.reset();
  assertEquals([...await setup.driver.config.read(0, 136)], new Array(136).fill(0));
  const { events, leds, selections, status } = setup.report;
  assertEquals([events.waiting, events.dropped, leds.LED_CAPSL], [0, 4, false]);
  assertEquals([selections.length, status.length], [1, 1]);
  await setup.driver.restart();
  setup.send({ key: "b" });
  assertEquals((await setup.receive(2))[0], [1, 48, 1]);
});

Deno.test("a group that a ring's stop interrupted is ended", async () => {
  await using setup = await Setup.create({ profile: "mouse" });
  setup.send({ move: [1, 2] });
  assertEquals(await setup.receive(1), [[2, 0, 1]]);
  await setup.driver.stop();
  await setup.driver.restart();
  setup.send({ wheel: 1 });
  assertEquals(await setup.receive(3), [SYN, [2, 8, 1], SYN]);
});

Deno.test("a buffer on eventq that is too small breaks eventq only", async () => {
  await using setup = await Setup.create();
  const request = setup.driver.request(EVENTQ, [], [7]);
  setup.send({ key: "a" });
  await assertRejects(() => request, FrontendError, "broken");
  const [eventq, statusq] = setup.server.record().queues;
  assertEquals([eventq.broken, statusq.broken], [true, false]);
  assertEquals(
    eventq.faults[0].message,
    "Expected a buffer of at least 8 bytes on eventq, got 7",
  );
  await setup.sendStatus({ type: 0x11, code: 1, value: 1 });
  setup.send({ key: "a" });
  assertEquals(setup.report.events.waiting, 0);
  await setup.driver.reset();
  await setup.driver.restart();
  setup.send({ key: "b" });
  assertEquals((await setup.receive(2))[0], [1, 48, 1]);
});

Deno.test("a buffer on statusq that is too small breaks statusq only", async () => {
  await using setup = await Setup.create();
  await assertRejects(
    () => setup.driver.request(STATUSQ, [new Uint8Array(7)], []),
    FrontendError,
    "broken",
  );
  assertEquals(setup.server.record().queues.map(({ broken }) => broken), [false, true]);
  setup.send({ key: "a" });
  assertEquals((await setup.receive(1))[0], [1, 30, 1]);
});

Deno.test("the next guest finds the device in its initial state, and the record continues", async () => {
  await using setup = await Setup.create();
  await setup.ask(0x01, 0);
  await setup.driver.disconnect();
  await setup.driver.reconnect();
  assertEquals((await setup.ask(0x01, 0)).length, "vhostd keyboard".length);
  assertEquals(setup.report.selections[0].count, 2);
});

for (
  const [options, message] of [
    [{ profile: "mouse", evdevPath: "/dev/null" }, "Give --profile or --evdev-path, not both"],
    [{ noGrab: true }, "--no-grab has no effect without --evdev-path"],
    [{ eventsWait: true }, "--events-wait has no effect without --events"],
    [{ name: "x".repeat(129) }, "Expected a name of at most 128 bytes"],
    [{ evdevPath: "/dev/null" }, "Cannot pass /dev/null through: it is not an input device"],
    [{ evdevPath: "/no/such" }, "Cannot pass /no/such through: open: No such file or directory"],
  ] as [Record<string, unknown>, string][]
) {
  Deno.test(`opening is refused: ${message}`, async () => {
    await assertRejects(() => Setup.create(options), Error, message);
  });
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; !holds(); i++) {
    if (i === 500) throw new Error(`Expected ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

Deno.test("EvdevDevice reads groups from its descriptor, writes LEDs to it, and notices its removal", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const [events, leds] = [`${directory}/events`, `${directory}/leds`];
    await new Deno.Command("mkfifo", { args: [events, leds] }).output();
    const groups: string[] = [];
    const gone: string[] = [];
    const show = (group: InputEvent[]) =>
      group.map(({ type, code, value }) => `${type}:${code}:${value}`).join(" ");

    // A pipe whose write end is open elsewhere too, so that the test can end it
    using reading = openFile(events, { nonblocking: true });
    using device = new EvdevDevice(reading, profileModel("keyboard"));
    const writer = await Deno.open(events, { write: true });
    device.start({
      watch,
      onGroup: (group) => groups.push(show(group)),
      onGone: (reason) => gone.push(reason),
    });
    const bytes = encodeInputEvents([
      { type: 1, code: 30, value: 1 },
      { type: 0, code: 0, value: 0 },
      { type: 1, code: 31, value: 1 },
    ]);
    await writer.write(bytes.subarray(0, 30));
    await writer.write(bytes.subarray(30));
    await until("a group", () => groups.length === 1);
    assertEquals(groups, ["1:30:1 0:0:0"]);
    writer.close();
    await until("the end", () => gone.length === 1);
    assertEquals([groups, gone], [["1:30:1 0:0:0", "1:30:0 0:0:0"], ["it has ended"]]);

    using written = openFile(leds, { write: true, nonblocking: true });
    using lamp = new EvdevDevice(written, profileModel("keyboard"));
    using reader = await Deno.open(leds, { read: true });
    lamp.write({ type: 1, code: 30, value: 1 }); // a guest must not type on the host
    lamp.write({ type: 0x11, code: 1, value: 1 });
    lamp.write({ type: 0x11, code: 9, value: 1 }); // it has no such LED
    const into = new Uint8Array(96);
    assertEquals(await reader.read(into), 48);
    assertEquals([...into.subarray(0, 48)], [
      ...encodeInputEvents([{ type: 0x11, code: 1, value: 1 }, { type: 0, code: 0, value: 0 }]),
    ]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("events are read from standard input, and the guest's status events are printed on standard output", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/input.sock`;
  const root = new URL("../../", import.meta.url).href;
  const server = new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--quiet",
      `import { serve } from "${root}mod.ts";
       import input from "${root}backends/input/mod.ts";
       const server = await serve(input, {
         socketPath: ${JSON.stringify(path)},
         options: { events: "stdin", printStatus: true },
         log: (message) => console.error(message),
       });
       await server.finished;`,
    ],
    cwd: new URL("../../", import.meta.url),
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  try {
    const stdin = server.stdin.getWriter();
    const say = (text: string) => stdin.write(new TextEncoder().encode(text));
    const next = async (stream: ReadableStreamDefaultReader<Uint8Array>) =>
      new TextDecoder().decode((await stream.read()).value);
    const stdout = server.stdout.getReader();
    const stderr = server.stderr.getReader();

    const driver = await VirtioDriver.start(path, {
      queues: QUEUES,
      connectMs: 60_000,
    });
    const events = [driver.request(EVENTQ, [], [8]), driver.request(EVENTQ, [], [8])];
    await say('{"key":"a"\n');
    assert((await next(stderr)).startsWith("Line 1 of standard input: Expected "));
    await say('{"key":"nokey"}\n{"key":"q","val');
    assertEquals(
      await next(stderr),
      'Line 2 of standard input: Expected a key such as a, enter, f1 or KEY_LEFTCTRL, got "nokey"\n',
    );
    await say('ue":1}\n');
    const [{ data: [press] }] = await Promise.all(events);
    assertEquals([...press], [1, 0, 16, 0, 1, 0, 0, 0]);
    await driver.request(STATUSQ, [Uint8Array.of(0x11, 0, 1, 0, 1, 0, 0, 0)], []);
    assertEquals(await next(stdout), '{"type":"EV_LED","code":"LED_CAPSL","value":1}\n');
    await stdin.close(); // the device stays
    await driver.request(STATUSQ, [Uint8Array.of(0x11, 0, 1, 0, 0, 0, 0, 0)], []);
    assertEquals(await next(stdout), '{"type":"EV_LED","code":"LED_CAPSL","value":0}\n');
    await driver.close();
    await Promise.all([stdout.cancel(), stderr.cancel()]);
  } finally {
    server.kill("SIGKILL");
    await server.status;
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("events on standard input are dropped until a driver runs, or wait with --events-wait", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/input.sock`;
    const lines = ["a", "b", "c"].map((key) => JSON.stringify({ key, value: 1 }));
    await Deno.writeTextFile(`${directory}/events`, lines.join("\n"));
    for (const waits of [false, true]) {
      await using cli = new CliProcess(
        ["input", `--socket-path=${path}`, "--events=stdin", ...waits ? ["--events-wait"] : []],
        { through: ["sh", "-c", `exec "$@" <${directory}/events`, "sh"] },
      );
      // In any order
      const said = waits ? "" : await cli.until("Events are dropped while no driver listens");
      if (!said.includes("listens on")) await cli.until("listens on");
      await using driver = await VirtioDriver.start(path, { queues: QUEUES });
      const keys: number[] = [];
      for (let i = 0; i < (waits ? 6 : 4); i++) {
        const { data: [bytes] } = await driver.request(EVENTQ, [], [8]);
        if (bytes[0] === 1) keys.push(bytes[2]);
      }
      // Keys that are still down are sent at once, others when their line is read.
      assertEquals(keys, [30, 48, 46]);
      assertEquals((await cli.stop()).status, 0);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
