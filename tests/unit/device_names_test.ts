import { assertThrows } from "@std/assert";
import { type AnyDevice, defineDevice } from "../../mod.ts";
import { checkHandlers, checkOpenDevice } from "../../src/virtio/device_names.ts";

const definition = {
  name: "sensor",
  deviceId: 63,
  about: "A sensor",
  module: import.meta.url,
  queues: { requestq: { about: "r", family: "requestq" }, eventq: { about: "e" } },
  features: { LOUD: { bit: 0, about: "l" } },
  handlers: () => ({ queues: { requestq: () => 0, eventq: () => 0 } }),
};
const sensor: AnyDevice = defineDevice(definition);
const handler = () => 0;

Deno.test("defineDevice() refuses misspelt names, and suggests the right one", () => {
  const misspelt = { ...definition, option: {} };
  assertThrows(() => defineDevice(misspelt), Error, "got option; did you mean options?");
});

Deno.test("checkHandlers() refuses a misspelt queue, a misspelt hook and a missing handler", () => {
  const queues = { requestq: handler, eventq: handler };
  checkHandlers(sensor, { queues, close: handler });
  for (
    const [handlers, message] of [
      [{ queues: { reqestq: handler } }, "got reqestq; did you mean requestq?"],
      [{ queues, onBacth: handler }, "got onBacth; did you mean onBatch?"],
      [queues, "expected queues, onBatch"],
      [{}, "expected a function for queue requestq, got none"],
      [{ queues: { requestq: handler } }, "expected a function for queue eventq, got none"],
      [{ queues: { ...queues, eventq: 5 } }, "expected a function for queue eventq, got none"],
    ] as const
  ) assertThrows(() => checkHandlers(sensor, handlers as never), Error, message);
});

Deno.test("checkHandlers() accepts an instance of a class with further members", () => {
  class Queues {
    readings = 0;
    requestq = handler;
    eventq(): number {
      return 0;
    }
  }
  class Sensor {
    readings = 0;
    queues = new Queues();
  }
  checkHandlers(sensor, new Sensor() as never);
});

Deno.test("checkOpenDevice() refuses unknown features, queues and hooks", () => {
  checkOpenDevice(sensor, { offer: { LOUD: false } as never, queues: { requestq: 2 } });
  for (
    const [control, message] of [
      [{ offer: { LUOD: false } }, "got LUOD; did you mean LOUD?"],
      [{ queues: { eventq: 2 } }, "expected requestq, got eventq"],
      [{ requests: { NET_SET_MTUS() {} } }, "got NET_SET_MTUS; did you mean NET_SET_MTU?"],
      [{ onConfigWrites() {} }, "did you mean onConfigWrite?"],
    ] as const
  ) assertThrows(() => checkOpenDevice(sensor, control as never), Error, message);
});
