import { assertEquals } from "@std/assert";
import { profileModel } from "../../backends/input/profiles.ts";
import { StatusLog } from "../../backends/input/status.ts";

Deno.test("StatusLog keeps the state of LEDs and the latest events", () => {
  let now = 10;
  const log = new StatusLog(profileModel("keyboard"), () => now++);
  const passedOn: number[] = [];
  log.onEvent = ({ code }) => passedOn.push(code);
  assertEquals(log.leds, { LED_NUML: false, LED_CAPSL: false, LED_SCROLLL: false });
  log.take({ type: 0x11, code: 1, value: 1 });
  log.take({ type: 0x14, code: 0, value: 250 });
  log.take({ type: 0x11, code: 1, value: 1 });
  assertEquals(log.leds, { LED_NUML: false, LED_CAPSL: true, LED_SCROLLL: false });
  assertEquals(log.records, [
    { name: "EV_LED LED_CAPSL", value: 1, count: 2, first: 10, last: 12 },
    { name: "EV_REP REP_DELAY", value: 250, count: 1, first: 11, last: 11 },
  ]);
  assertEquals(passedOn, [1, 0, 1]);
  log.reset();
  assertEquals(log.leds.LED_CAPSL, false);
  assertEquals(log.records.length, 2);
});

Deno.test("StatusLog.reset() turns off LEDs that the driver turned on", () => {
  const log = new StatusLog(profileModel("keyboard"));
  const released: number[][] = [];
  log.onRelease = ({ type, code, value }) => released.push([type, code, value]);
  log.take({ type: 0x11, code: 0, value: 1 });
  log.take({ type: 0x11, code: 1, value: 1 });
  log.take({ type: 0x11, code: 0, value: 0 });
  log.reset();
  log.reset();
  assertEquals(released, [[0x11, 1, 0]]);
});

Deno.test("StatusLog only counts events that the device did not announce", () => {
  const log = new StatusLog(profileModel("mouse"));
  for (let code = 0; code < 1000; code++) log.take({ type: 0x11, code, value: 1 });
  assertEquals([log.leds, log.records, log.others], [{}, [], 1000]);
});
