import { assertEquals, assertThrows } from "@std/assert";
import {
  encodeInputEvents,
  evdevModel,
  type EvdevQuery,
  EvdevStream,
} from "../../backends/input/evdev.ts";
import { evdevRequests, INPUT_EVENT_BYTES } from "../../backends/input/evdev_requests.ts";
import { type InputEvent, SYN_REPORT } from "../../backends/input/events.ts";
import { profileModel } from "../../backends/input/profiles.ts";
import { selectionAnswer } from "../../backends/input/selection.ts";
import { Errno, LinuxError } from "../../src/linux/mod.ts";

/** The requests as in C, and ours. */
const requests: Record<string, number> = {
  EVIOCGID: evdevRequests.id,
  "EVIOCGNAME(256)": evdevRequests.name(256),
  "EVIOCGUNIQ(128)": evdevRequests.uniq(128),
  "EVIOCGPROP(128)": evdevRequests.properties(128),
  "EVIOCGKEY(96)": evdevRequests.keysDown(96),
  "EVIOCGBIT(0, 4)": evdevRequests.codes(0, 4),
  "EVIOCGBIT(EV_KEY, 128)": evdevRequests.codes(1, 128),
  "EVIOCGBIT(EV_SND, 128)": evdevRequests.codes(0x12, 128),
  "EVIOCGABS(ABS_Y)": evdevRequests.axis(1),
  "EVIOCGABS(ABS_MAX)": evdevRequests.axis(0x3f),
  EVIOCGRAB: evdevRequests.grab,
  "sizeof(struct input_event)": INPUT_EVENT_BYTES,
};

Deno.test("evdevRequests has the numbers of linux/input.h", () => {
  assertEquals(requests["EVIOCGID"], 0x80084502);
  assertEquals(requests["EVIOCGNAME(256)"], 0x81004506);
  assertEquals(requests["EVIOCGKEY(96)"], 0x80604518);
  assertEquals(requests["EVIOCGBIT(EV_KEY, 128)"], 0x80804521);
  assertEquals(requests["EVIOCGABS(ABS_Y)"], 0x80184541);
  assertEquals(requests["EVIOCGRAB"], 0x40044590);
});

function hasCompiler(): boolean {
  try {
    return Deno.statSync("/usr/include/linux/input.h").isFile &&
      new Deno.Command("gcc", { args: ["--version"] }).outputSync().success;
  } catch {
    return false;
  }
}

Deno.test({
  name: "evdevRequests has the numbers that a C compiler makes of linux/input.h",
  ignore: !hasCompiler(),
  fn() {
    const directory = Deno.makeTempDirSync();
    try {
      const source = `${directory}/requests.c`;
      const program = `${directory}/requests`;
      const names = Object.keys(requests);
      Deno.writeTextFileSync(
        source,
        `#include <linux/input.h>
#include <stdio.h>
int main(void) {
${names.map((name) => `printf("%lu\\n", (unsigned long)(${name}));`).join("\n")}
}`,
      );
      const built = new Deno.Command("gcc", { args: ["-o", program, source] }).outputSync();
      assertEquals(built.success, true, new TextDecoder().decode(built.stderr));
      const { stdout } = new Deno.Command(program).outputSync();
      const numbers = new TextDecoder().decode(stdout).trim().split("\n").map(Number);
      assertEquals(Object.fromEntries(names.map((name, i) => [name, numbers[i]])), requests);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  },
});

/** A device of the host that answers the given requests, and zeroes to all others. */
function host(answers: [request: number, answer: ArrayLike<number>][]): EvdevQuery {
  return (request, into) => {
    const answer = answers.find(([other]) => other === request)?.[1];
    if (answer === undefined) return 0;
    into.set(answer);
    return answer.length;
  };
}

const ascii = (text: string) => [...text].map((c) => c.charCodeAt(0));

Deno.test("evdevModel() returns the device's answers", () => {
  const model = evdevModel(host([
    [evdevRequests.id, [3, 0, 0x6d, 0x04, 0x52, 0xc5, 0x11, 0x01]],
    [evdevRequests.name(128), [...ascii("Pen"), 0]],
    [evdevRequests.uniq(128), [...ascii("s1"), 0]],
    [evdevRequests.properties(128), [0x02]],
    [evdevRequests.codes(0, 128), [0xff]],
    [evdevRequests.codes(3, 128), [0x01, 0x00, 0x00, 0x01]],
    [evdevRequests.codes(0x11, 128), [0x02]],
    [evdevRequests.codes(0x14, 128), [0x03]],
    [
      evdevRequests.axis(0),
      new Uint8Array(Int32Array.of(77, -100, 100, 1, 2, 3).buffer),
    ],
  ]));
  assertEquals(model, {
    kind: "evdev",
    name: "Pen",
    serial: "s1",
    ids: { bustype: 3, vendor: 0x046d, product: 0xc552, version: 0x0111 },
    properties: new Set([1]),
    codes: new Map([[3, new Set([0, 24])], [0x11, new Set([1])]]), // no EV_REP
    axes: new Map([
      [0, { min: -100, max: 100, fuzz: 1, flat: 2, res: 3 }],
      [24, { min: 0, max: 0, fuzz: 0, flat: 0, res: 0 }],
    ]),
  });
  assertEquals([...selectionAnswer(model, 0x10, 0)], [0x02]);
  assertEquals([...selectionAnswer(model, 0x11, 3)], [0x01, 0, 0, 0x01]);
});

Deno.test("evdevModel() accepts a device without a serial number, and no other failure", () => {
  const failing = (failing: number, errno: number): EvdevQuery => (request) => {
    if (request === failing) throw new LinuxError("ioctl", errno);
    return 0;
  };
  assertEquals(evdevModel(failing(evdevRequests.uniq(128), Errno.ENOENT)).serial, "");
  assertThrows(
    () => evdevModel(failing(evdevRequests.id, Errno.ENOTTY)),
    LinuxError,
    "ENOTTY",
  );
});

/** A stream and its output, as `type:code:value`. */
function stream(keysDown: number[] = []) {
  const groups: string[] = [];
  const made = new EvdevStream({
    model: profileModel("keyboard"),
    keysDown: () => new Set(keysDown),
    onGroup: (group) =>
      groups.push(group.map(({ type, code, value }) => `${type}:${code}:${value}`).join(" ")),
  });
  const push = (...events: [number, number, number][]) =>
    made.push(encodeInputEvents(
      events.map(([type, code, value]): InputEvent => ({ type, code, value })),
    ));
  return { made, groups, push };
}

Deno.test("encodeInputEvents() writes struct input_event", () => {
  assertEquals([...encodeInputEvents([{ type: 0x11, code: 0x0102, value: -2 }])], [
    ...new Array(16).fill(0),
    ...[0x11, 0, 0x02, 0x01, 0xfe, 0xff, 0xff, 0xff],
  ]);
});

Deno.test("EvdevStream returns whole groups", () => {
  const { groups, push } = stream();
  push([1, 30, 1], [0, 0, 0], [1, 31, 1]);
  assertEquals(groups, ["1:30:1 0:0:0"]);
  push([1, 30, 0], [0, 0, 0]);
  assertEquals(groups, ["1:30:1 0:0:0", "1:31:1 1:30:0 0:0:0"]);
});

Deno.test("EvdevStream joins divided events", () => {
  const { made, groups } = stream();
  const bytes = encodeInputEvents([{ type: 1, code: 30, value: 1 }, SYN_REPORT]);
  for (const byte of bytes) made.push(Uint8Array.of(byte));
  assertEquals(groups, ["1:30:1 0:0:0"]);
});

Deno.test("EvdevStream drops events that the device did not announce", () => {
  const { groups, push } = stream();
  push([4, 4, 458756], [1, 30, 1], [3, 0, 5], [0, 0, 1]);
  assertEquals(groups, ["1:30:1 0:0:1"]);
});

Deno.test("EvdevStream corrects the state of keys after the host lost events", () => {
  const { made, groups, push } = stream([31, 32]);
  push([1, 30, 1], [1, 31, 1], [0, 0, 0], [1, 33, 1]);
  push([0, 3, 0], [1, 31, 0], [0, 0, 0]);
  assertEquals(groups, ["1:30:1 1:31:1 0:0:0", "1:30:0 1:32:1 0:0:0"]);
  assertEquals(made.lost, 1);
  push([1, 31, 0], [0, 0, 0]);
  assertEquals(groups.length, 3);
});

Deno.test("EvdevStream drops a group that never ends", () => {
  const { made, groups, push } = stream();
  for (let i = 0; i < 3 * 4096; i++) push([1, 30, 2]);
  assertEquals([groups.length, made.lost], [0, 1]);
  push([0, 0, 0], [1, 30, 1], [0, 0, 0]);
  assertEquals(groups, ["1:30:1 0:0:0"]);
});

Deno.test("EvdevStream releases keys when the device is gone", () => {
  const { made, groups, push } = stream();
  push([1, 30, 1], [1, 31, 1], [0, 0, 0], [1, 30, 0], [0, 0, 0], [1, 32, 1]);
  made.end();
  assertEquals(groups.slice(2), ["1:31:0 0:0:0"]);
  made.end();
  assertEquals(groups.length, 3);
});
