import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import sensor from "../../backends/sensor/mod.ts";
import { findInputs } from "../../backends/sensor/hwmon.ts";
import {
  CONFIG_STATUS,
  type DeviceServer,
  type FoundField,
  SelfDescribingDriver,
  serve,
} from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";

const EVENTQ = 0;
const STATUS = 1, FOLLOWED = 2, READING = 3;

class Setup implements AsyncDisposable {
  readonly fields: SelfDescribingDriver;

  private constructor(
    readonly directory: string,
    readonly server: DeviceServer,
    readonly driver: VirtioDriver,
    readonly made: AsyncDisposableStack,
  ) {
    this.fields = new SelfDescribingDriver(driver.config);
  }

  static async create(inputs: Record<string, string> = {}): Promise<Setup> {
    await using made = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir();
    made.defer(() => Deno.remove(directory, { recursive: true }));
    for (const [file, text] of Object.entries(inputs)) {
      await Deno.writeTextFile(`${directory}/${file}`, text);
    }
    const socketPath = `${directory}/sensor.sock`;
    const options = Object.keys(inputs).length > 0 ? { hwmon: directory, interval: 10 } : {};
    const server = made.use(await serve(sensor, { socketPath, options, log() {} }));
    const driver = made.use(await VirtioDriver.start(socketPath));
    return new Setup(directory, server, driver, made.move());
  }

  // deno-lint-ignore no-explicit-any
  set(body: unknown): any {
    return this.server.host.control.commands!.set.run(body);
  }

  // deno-lint-ignore no-explicit-any
  get report(): any {
    return this.server.record().report;
  }

  /** Reading, value and sequence number of the next event. */
  async event(): Promise<number[]> {
    const { data } = await this.driver.request(EVENTQ, [], [12]);
    return [...new Int32Array(data[0].buffer, data[0].byteOffset, 3)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.made.disposeAsync();
  }
}

function decode({ data }: FoundField): unknown[] {
  const text = (from: number, to: number) =>
    new TextDecoder().decode(data.subarray(from, to)).replaceAll("\0", "");
  const view = new DataView(data.buffer, data.byteOffset);
  return [text(0, 16), text(16, 24), view.getInt32(24, true), view.getUint32(28, true)];
}

Deno.test("sensor's driver finds the readings, and the record shows which it used", async () => {
  await using setup = await Setup.create({
    "temp1_input": "-1500\n",
    "temp1_label": "outside\n",
    "fan2_input": "1200\n",
    "fan2_label": "a label that is too long for a reading\n",
    "temp1_max": "90000\n",
  });
  const { fields, server } = setup;
  const status = (await fields.find(STATUS))!;
  await fields.status(status, CONFIG_STATUS.ACKNOWLEDGE | CONFIG_STATUS.DRIVER);
  assertEquals(decode((await fields.find(READING))!), ["fan2", "RPM", 1200, 1]);
  assertEquals(decode((await fields.find(READING))!), ["outside", "m°C", -1500, 1]);
  const followed = await fields.find(FOLLOWED);
  assertEquals(await fields.acknowledge(followed, 1), true);
  assertEquals(await fields.acknowledge(followed, 2), false); // there is no such reading

  const { layout, fields: record } = server.record().config;
  assertEquals(layout, "self-describing");
  const used = record.filter(({ used }) => used).map(({ name }) => name);
  assertEquals(used.filter((name) => !/(unit|value|sequence)$/.test(name)), [
    "status",
    "followed",
    "reading0.name",
    "reading1.name",
  ]);
  const { acknowledged, left } = record.find(({ name }) => name === "followed")!;
  assertEquals([acknowledged, left], [["READING_1"], ["READING_0"]]);

  await fields.reset(status);
  assertEquals(server.record().config.fields.some(({ used }) => used), false);
});

Deno.test("sensor posts changes of the readings that the driver follows", async () => {
  await using setup = await Setup.create();
  const { fields } = setup;
  assertEquals(setup.set({ name: "door", value: 0, unit: "open" }).sequence, 1);
  setup.set({ name: "window", value: 0 });
  assertEquals(await fields.acknowledge(await fields.find(FOLLOWED), 1), true);

  const event = setup.event();
  setup.set({ name: "door", value: 1 });
  setup.set({ name: "window", value: -7 });
  assertEquals(await event, [1, -7, 2]);

  // Without buffers only the latest change is kept
  for (let value = 0; value < 100; value++) setup.set({ name: "window", value });
  assertEquals(await setup.event(), [1, 99, 102]);
  assertEquals(setup.report.readings, [
    { name: "door", unit: "open", value: 1, sequence: 2 },
    { name: "window", unit: "", value: 99, sequence: 102 },
  ]);
});

Deno.test("sensor reads its inputs periodically, and reports those that it cannot read", async () => {
  await using setup = await Setup.create({ "in0_input": "3300" });
  const { fields, directory } = setup;
  await fields.acknowledge(await fields.find(FOLLOWED), 0);
  const event = setup.event();
  const path = `${directory}/in0_input`;
  await Deno.writeTextFile(`${path}.new`, "3301");
  await Deno.rename(`${path}.new`, path);
  assertEquals(await event, [0, 3301, 2]);
  await Deno.writeTextFile(path, "no number");
  while (setup.report.failing.length === 0) await setup.driver.connection.getFeatures();
  assertEquals(setup.report.failing, ["in0"]);
});

Deno.test("sensor refuses readings that it cannot hold, and changes nothing", async () => {
  await using setup = await Setup.create();
  for (
    const body of [undefined, {}, { name: "a" }, { name: "a\0", value: 1 }, { name: 1, value: 1 }]
  ) {
    assertThrows(() => setup.set(body), TypeError, "Expected a name");
  }
  for (const value of [0.5, 2 ** 31, NaN]) {
    assertThrows(() => setup.set({ name: "a", value }), RangeError, "32 bits");
  }
  assertThrows(() => setup.set({ name: "longer than 16 bytes", value: 1 }), RangeError, "holds 16");
  assertEquals(setup.report.readings, []);
  for (const name of ["a", "b", "c", "d"]) setup.set({ name, value: 1 });
  assertThrows(() => setup.set({ name: "e", value: 1 }), RangeError, "at most 4");
});

Deno.test("sensor breaks its queue at a buffer too small for an event", async () => {
  await using setup = await Setup.create();
  const { fields, driver, server } = setup;
  setup.set({ name: "a", value: 1 });
  await fields.acknowledge(await fields.find(FOLLOWED), 0);
  const lost = assertRejects(() => driver.request(EVENTQ, [], [11]));
  await driver.connection.getFeatures();
  setup.set({ name: "a", value: 2 });
  await lost;
  assertStringIncludes(
    server.record().queues[EVENTQ].faults[0].message,
    "at least 12 bytes, got 11",
  );
});

Deno.test("sensor refuses a directory without inputs, or none", async () => {
  await assertRejects(
    () => findInputs("/none"),
    Error,
    "Cannot read /none: No such file or directory",
  );
  await assertRejects(() => Setup.create({ "temp1_max": "1" }), Error, "such as temp1_input");
});
