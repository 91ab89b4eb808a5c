/**
 * The input device: virtio 1.3, 5.8.
 *
 * @module
 */

import {
  bytes,
  type ConfigView,
  defineDevice,
  type OpenDevice,
  OptionError,
  packed,
  type QueueHandle,
  u8,
} from "../../mod.ts";
import { Backlog } from "./backlog.ts";
import { codeName, typeName } from "./codes.ts";
import { EvdevDevice } from "./evdev.ts";
import { decodeEvent, encodeEvent, EVENT_BYTES, parseEvents } from "./events.ts";
import { JsonLineWriter, readLines } from "./lines.ts";
import { identity, type InputModel, profileModel } from "./profiles.ts";
import { selectionAnswer, SelectionLog } from "./selection.ts";
import { StatusLog } from "./status.ts";

const queues = {
  eventq: { about: "Buffers for events, which the device fills", sender: "device" },
  statusq: { about: "LEDs and other feedback for the device" },
} as const;

// virtio 1.3, 5.8.4 Device configuration layout
const config = packed({
  select: u8("What is asked for: a name, ids, event types or axes", { access: "rw" }),
  subsel: u8("Which of them: an event type or an axis", { access: "rw" }),
  size: u8("Size of the answer in bytes; 0 if there is no such thing"),
  reserved: bytes(5, "Reserved"),
  u: bytes(128, "The answer: a text, a bitmap, an axis or ids"),
});

/** Where `size` is: reads from here on are for the answer. */
const SIZE_OFFSET = 2;

/** What both halves of the device work with. */
interface Shared {
  backlog: Backlog;
  status: StatusLog;
}

/** A virtio input device: a keyboard, a mouse or a tablet, or one of the host's. */
export default defineDevice({
  name: "input",
  deviceId: 18,
  about: "A keyboard, a mouse or a tablet",
  module: import.meta.url,
  panel: import.meta.resolve("./panel.ts"),
  queues,
  config,
  threads: "main",
  options: {
    profile: {
      type: "text",
      placeholder: "PROFILE",
      choices: ["keyboard", "mouse", "tablet"],
      about: "What it is; by default a keyboard",
    },
    name: { type: "text", placeholder: "NAME", about: "The name that the guest sees" },
    serial: { type: "text", placeholder: "SERIAL", about: "The serial number that the guest sees" },
    vendorId: { type: "number", placeholder: "ID", most: 0xffff, about: "The vendor id" },
    productId: { type: "number", placeholder: "ID", most: 0xffff, about: "The product id" },
    evdevPath: {
      type: "text",
      placeholder: "PATH",
      about: "Pass a device of the host through, such as /dev/input/event3",
    },
    noGrab: {
      type: "flag",
      about: "Let the host have the events of --evdev-path too",
      needs: "evdevPath",
    },
    events: {
      type: "text",
      placeholder: "stdin",
      choices: ["stdin"],
      about:
        "Read events as JSON lines from standard input; events that come while no driver listens " +
        "are dropped",
    },
    eventsWait: {
      type: "flag",
      needs: "events",
      about: "Keep events of standard input until a driver listens, instead",
    },
    printStatus: { type: "flag", about: "Print the guest's events, such as LEDs, as JSON lines" },
  },

  async open({ options, config: view, log, watch }) {
    if (options.evdevPath !== undefined && options.profile !== undefined) {
      throw new OptionError("Give --profile or --evdev-path, not both");
    }
    using opened = new DisposableStack();
    const evdev = options.evdevPath === undefined
      ? undefined
      : opened.use(await EvdevDevice.open(options.evdevPath, { grab: !options.noGrab }));
    const model: InputModel = evdev === undefined
      ? profileModel(options.profile ?? "keyboard", options)
      : { ...evdev.model, ...identity(evdev.model, options) };
    const backlog = new Backlog();
    const status = new StatusLog(model);
    const selections = new SelectionLog();
    const submit = (json: unknown) => backlog.add(parseEvents(json, model));

    const printer = new JsonLineWriter(writeStdout);
    status.onRelease = (event) => evdev?.write(event);
    status.onEvent = (event) => {
      evdev?.write(event);
      const { type, code, value } = event;
      if (options.printStatus) {
        printer.write({ type: typeName(type), code: codeName(type, code), value });
      }
    };
    evdev?.start({
      watch,
      onGroup: (group) => backlog.add([group]),
      onGone: (reason) => log(`${options.evdevPath} is gone: ${reason}`),
    });
    const stdin = options.events === "stdin" ? Deno.stdin.readable.getReader() : undefined;
    if (stdin !== undefined) {
      let hasDropped = false;
      void readEvents(stdin, async (json) => {
        if (options.eventsWait) await backlog.drained();
        submit(json);
        if (backlog.isListening || hasDropped) return;
        hasDropped = true;
        log("Events are dropped while no driver listens; --events-wait lets them wait");
      }, log);
    }
    const resources = opened.move();

    return {
      shared: { backlog, status },
      onConfigWritten() {
        answer(view, model);
        selections.written();
      },
      onConfigRead(offset, bytes) {
        if (offset + bytes > SIZE_OFFSET) selections.read(view.select, view.subsel, view.size);
      },
      onReset() {
        answer(view, model);
        selections.reset();
        backlog.reset();
        status.reset();
      },
      commands: {
        events: {
          about: "Send an event, or an array of them, to the guest",
          run(body) {
            submit(body);
            return backlog.counts;
          },
        },
      },
      report: () => ({
        kind: model.kind,
        name: model.name,
        selections: selections.records,
        otherSelections: selections.others,
        events: backlog.counts,
        leds: status.leds,
        status: status.records,
        otherStatus: status.others,
        ...(options.printStatus && { unprintedStatus: printer.dropped }),
        ...(evdev !== undefined && { evdev: { path: options.evdevPath, lost: evdev.lost } }),
      }),
      async [Symbol.asyncDispose]() {
        resources.dispose();
        await stdin?.cancel();
      },
    } satisfies OpenDevice<typeof queues, Record<never, never>, typeof config, Shared>;
  },

  handlers({ shared: { backlog, status }, queues }) {
    const bytes = new Uint8Array(EVENT_BYTES);
    const event = new DataView(bytes.buffer);

    function deliver(eventq: QueueHandle): void {
      if (!eventq.isRunning) return backlog.end();
      backlog.begin();
      while (!backlog.isEmpty) {
        const chain = eventq.take();
        if (chain === null) break;
        if (chain.writableBytes < EVENT_BYTES) {
          return eventq.fail(new RangeError(tooSmall("eventq", chain.writableBytes)), chain);
        }
        encodeEvent(backlog.next()!, event);
        chain.writable.write(0, bytes);
        eventq.complete(chain, EVENT_BYTES);
      }
      eventq.flush();
    }
    backlog.onEvents = () => deliver(queues.eventq[0]);

    return {
      queues: {
        eventq: deliver,
        statusq({ readable }) {
          if (readable.read(0, bytes) < EVENT_BYTES) {
            throw new RangeError(tooSmall("statusq", readable.byteLength));
          }
          status.take(decodeEvent(event));
          return 0;
        },
      },
      onStop(queue) {
        if (queue.name === "eventq") backlog.end();
      },
    };
  },
});

/** Puts the answer to the selection into config space. */
function answer(view: ConfigView<typeof config>, model: InputModel): void {
  const answer = selectionAnswer(model, view.select, view.subsel);
  view.size = answer.length;
  view.u = answer;
}

// virtio 1.3, 5.8.6.1
function tooSmall(queue: string, bytes: number): string {
  return `Expected a buffer of at least ${EVENT_BYTES} bytes on ${queue}, got ${bytes}`;
}

async function readEvents(
  stdin: ReadableStreamDefaultReader<Uint8Array>,
  submit: (json: unknown) => Promise<void>,
  log: (message: string) => void,
): Promise<void> {
  try {
    await readLines(stdin, {
      async onLine(line, number) {
        try {
          await submit(JSON.parse(line));
        } catch (error) {
          log(`Line ${number} of standard input: ${(error as Error).message}`);
        }
      },
      onTooLong: (number) => log(`Line ${number} of standard input is too long`),
    });
  } catch (error) {
    log(`Cannot read standard input: ${(error as Error).message}`);
  }
}

async function writeStdout(bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
}
