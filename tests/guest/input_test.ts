import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { RecordJson } from "../../src/runtime/record.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { MACHINES } from "../../tools/guest/qemu.ts";
import {
  Backend,
  expectEndedRecord,
  expectLiveRecord,
  hasPackedRings,
  negotiated,
  ok,
  steps,
  temporary,
} from "./lib/helpers.ts";

// linux/input-event-codes.h
const EV_SYN = 0, EV_KEY = 1, EV_REL = 2, EV_ABS = 3;
const KEY_A = 30, BTN_LEFT = 0x110, REL_X = 0, REL_Y = 1, ABS_X = 0, ABS_Y = 1;

/** struct input_event on a 64-bit machine: two of 64 bits for the time, then type, code, value. */
const EVENT_BYTES = 24;

/** Type, code and value. */
type Event = [type: number, code: number, value: number];

const SYN_REPORT: Event = [EV_SYN, 0, 0];

/** Returns the events that the guest reads from an input device during an action of the host. */
async function eventsOf(
  guest: Guest,
  name: string,
  count: number,
  act: () => Promise<unknown>,
): Promise<Event[]> {
  // The device is open when the shell continues; the pipe ends when all is read.
  await ok(
    guest,
    `rm -f /tmp/pipe; mkfifo /tmp/pipe; exec 3</dev/input/${name}; ` +
      `dd bs=${EVENT_BYTES} count=${count} <&3 >/tmp/pipe 2>/dev/null &`,
  );
  await act();
  const { bytes } = await guest.run("timeout 20 cat /tmp/pipe");
  assertEquals(bytes.length, count * EVENT_BYTES);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) => {
    const at = i * EVENT_BYTES + 16;
    return [view.getUint16(at, true), view.getUint16(at + 2, true), view.getInt32(at + 4, true)];
  });
}

/** The number of events that wait for the driver's buffers. */
function waiting({ report }: RecordJson): number {
  return (report.events as { waiting: number }).waiting;
}

/** A shell command that writes an event to an input device. */
function writeEvent(name: string, [type, code, value]: Event): string {
  const bytes = new Uint8Array(EVENT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(16, type, true);
  view.setUint16(18, code, true);
  view.setInt32(20, value, true);
  return `echo ${bytes.toBase64()} | base64 -d >/dev/input/${name}`;
}

for (const machine of MACHINES) {
  Deno.test(`a guest on ${machine} uses our keyboard`, async (t) => {
    using directory = temporary();
    await using keyboard = await Backend.start(
      "input",
      ["--name=Typed by tests", "--serial=K-1", "--print-status"],
      directory,
    );
    // QEMU 10 always offers packed rings for this device; others may not.
    await using guest = await Guest.boot({
      machine,
      devices: [keyboard.device({ packed: true })],
    });

    await steps(t, {
      "Linux finds its name, serial and keys": async () => {
        const device = "/sys/class/input/event0/device";
        assertEquals(await ok(guest, `cat ${device}/name`), "Typed by tests");
        assertEquals(await ok(guest, `cat ${device}/uniq`), "K-1");
        const words = (await ok(guest, `cat ${device}/capabilities/key`)).split(" ");
        const keys = BigInt(`0x${words.map((word) => word.padStart(16, "0")).join("")}`);
        assertEquals(keys >> BigInt(KEY_A) & 1n, 1n);
        assertEquals(keys >> BigInt(BTN_LEFT) & 1n, 0n);
      },

      "keys pressed on the host arrive in order": async () => {
        const events = await eventsOf(
          guest,
          "event0",
          4,
          () => keyboard.post("events", { key: "a" }),
        );
        assertEquals(events, [[EV_KEY, KEY_A, 1], SYN_REPORT, [EV_KEY, KEY_A, 0], SYN_REPORT]);
      },

      "keys keep arriving when the queue has been around": async () => {
        // Linux keeps 64 events for a slow reader and drops the rest.
        for (let i = 0; i < 8; i++) {
          const events = await eventsOf(
            guest,
            "event0",
            40,
            () => keyboard.post("events", { text: "a".repeat(10) }),
          );
          const values = events.filter(([type]) => type === EV_KEY).map(([, , value]) => value);
          assertEquals(values, Array.from({ length: 20 }, (_, i) => 1 - i % 2));
        }
      },

      "more events at once than the queue has buffers all reach Linux": async () => {
        const { size, requests } = (await keyboard.record()).queues[0];
        const text = "a".repeat(size); // four events each
        await keyboard.post("events", { text });
        await keyboard.until(({ queues }) => queues[0].requests === requests + 4 * size);
      },

      "an LED that the guest sets arrives on the host": async () => {
        await ok(guest, "echo 1 >/sys/class/leds/input0::capslock/brightness");
        assertEquals(JSON.parse(await keyboard.line()), {
          type: "EV_LED",
          code: "LED_CAPSL",
          value: 1,
        });
        const { leds } = (await keyboard.record()).report;
        assertEquals(leds, { LED_NUML: false, LED_CAPSL: true, LED_SCROLLL: false });
        await ok(guest, writeEvent("event0", [0x11, 1, 0]));
        assertEquals(JSON.parse(await keyboard.line()).value, 0);
      },

      "its driver is unbound and bound again": async () => {
        const device = await ok(guest, "basename $(readlink -f /sys/bus/virtio/devices/virtio*)");
        for (let i = 0; i < 3; i++) {
          await ok(guest, `echo ${device} >/sys/bus/virtio/drivers/virtio_input/unbind`);
          // No driver runs: this is dropped.
          await keyboard.post("events", { key: "b" });
          assertEquals(waiting(await keyboard.record()), 0);
          await ok(guest, `echo ${device} >/sys/bus/virtio/drivers/virtio_input/bind`);
          await keyboard.until(({ queues: [eventq] }) => eventq.running && eventq.enabled);
          const [name] = (await ok(guest, "ls -1 /dev/input")).split("\n");
          const events = await eventsOf(
            guest,
            name,
            2,
            () => keyboard.post("events", { key: "a", value: 1 }),
          );
          assertEquals(events, [[EV_KEY, KEY_A, 1], SYN_REPORT]);
          await keyboard.post("events", { key: "a", value: 0 });
        }
      },

      "the record says what the driver asked for": async () => {
        const record = await keyboard.record();
        expectLiveRecord(record, guest);
        assertEquals(negotiated(record), {
          acknowledged: ["INDIRECT_DESC", "EVENT_IDX", "VERSION_1"],
          left: [],
        });
        assert(hasPackedRings(record));
        assertEquals(record.config.reads.source, "reported");
        const selections = record.report.selections as { name: string; size: number }[];
        const names = selections.map(({ name }) => name);
        for (
          const name of [
            ...["ID_NAME", "ID_SERIAL", "ID_DEVIDS", "PROP_BITS"],
            ...["EV_BITS EV_KEY", "EV_BITS EV_LED", "EV_BITS EV_REL", "EV_BITS EV_ABS"],
          ]
        ) {
          assert(names.includes(name), `${name} is not in ${names}`);
        }
        // There is no axis to query.
        assertEquals(names.some((name) => name.startsWith("ABS_INFO")), false);
        assertEquals(selections.find(({ name }) => name === "ID_SERIAL")!.size, "K-1".length);
        const [eventq, statusq] = record.queues;
        assertEquals(eventq.name, "eventq");
        assert(eventq.requests > 4 * eventq.size && eventq.kicks > 0 && eventq.notifications > 0);
        assertEquals(statusq.name, "statusq");
        assert(statusq.requests >= 2 && statusq.kicks >= 2 && statusq.bytesRead >= 16);
      },

      "at the end the record is in its file": async () => {
        await guest.powerOff();
        const record = await keyboard.stop();
        expectEndedRecord(record);
        assert((record.report.selections as unknown[]).length > 0);
      },
    });
  });
}

Deno.test("a guest uses our keyboard, mouse and tablet at once", async (t) => {
  using directory = temporary();
  const start = (profile: string) =>
    Backend.start("input", [`--profile=${profile}`, `--name=${profile}`], directory);
  await using keyboard = await start("keyboard");
  await using mouse = await start("mouse");
  await using tablet = await start("tablet");
  await using guest = await Guest.boot({
    devices: [keyboard, mouse, tablet].map((input) => input.device()),
  });
  /** The guest's name of each, such as `event0`. */
  const events: Record<string, string> = {};

  await steps(t, {
    "Linux finds each by its name": async () => {
      const lines = await ok(guest, "cd /sys/class/input; grep . event*/device/name");
      for (const line of lines.split("\n")) {
        const [path, name] = line.split(":");
        events[name] = path.split("/")[0];
      }
      assertEquals(Object.keys(events).sort(), ["keyboard", "mouse", "tablet"]);
    },

    "the mouse moves and clicks": async () => {
      const got = await eventsOf(
        guest,
        events.mouse,
        7,
        () => mouse.post("events", [{ move: [10, -5] }, { button: "left" }]),
      );
      assertEquals(got, [
        [EV_REL, REL_X, 10],
        [EV_REL, REL_Y, -5],
        SYN_REPORT,
        [EV_KEY, BTN_LEFT, 1],
        SYN_REPORT,
        [EV_KEY, BTN_LEFT, 0],
        SYN_REPORT,
      ]);
    },

    "the tablet points to a place": async () => {
      const got = await eventsOf(
        guest,
        events.tablet,
        3,
        () => tablet.post("events", { position: [1234, 32767] }),
      );
      assertEquals(got, [[EV_ABS, ABS_X, 1234], [EV_ABS, ABS_Y, 32767], SYN_REPORT]);
    },

    "the tablet's driver asked for its axes": async () => {
      const names = ((await tablet.record()).report.selections as { name: string }[])
        .map(({ name }) => name).join();
      assertStringIncludes(names, "ABS_INFO ABS_X");
      assertStringIncludes(names, "ABS_INFO ABS_Y");
    },
  });
});
