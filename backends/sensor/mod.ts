/**
 * A sensor: a device of our own, for which no standard has a section. Its config space describes
 * itself (`src/virtio/config/self_describing.ts`), so this comment is its whole specification.
 *
 * Device ID: 38. Virtqueues: 0 eventq. Feature bits: none.
 *
 * Device configuration layout: fields of these types, little-endian.
 *
 * | type | field    | data                                                                           |
 * | ---- | -------- | ------------------------------------------------------------------------------ |
 * | 1    | status   | how far the driver has come; writing 0 resets the fields                       |
 * | 2    | followed | bit field: bit N is offered if reading N exists; the driver acknowledges it to |
 * |      |          | get the reading's changes on the eventq                                        |
 * | 3    | reading  | four times, reading 0 to 3: name, unit, value and sequence number              |
 *
 * Device operation: when a reading changes, its sequence number increases and the device announces
 * a configuration change. A driver that reads the same sequence number before and after a value has
 * read a whole one. If the driver follows the reading, the next buffer of the eventq gets
 * `le32 reading, le32 value, le32 sequence`. A change that finds no buffer waits for one, and only
 * the latest of each reading does.
 *
 * @module
 */

import {
  bitField,
  defineDevice,
  field,
  type OpenDevice,
  type QueueHandle,
  selfDescribing,
  statusField,
  struct,
  text,
  u32,
} from "../../mod.ts";
import { findInputs, NAME_BYTES, readInput, UNIT_BYTES } from "./hwmon.ts";

const reading = () =>
  field(
    3,
    struct({
      name: text(NAME_BYTES, "Its name; empty if there is no such reading"),
      unit: text(UNIT_BYTES, "The unit of the value"),
      value: u32("The value, in two's complement"),
      sequence: u32("How many times it was set"),
    }, "A reading"),
  );

const FOLLOWED = ["READING_0", "READING_1", "READING_2", "READING_3"] as const;

const config = selfDescribing({
  status: statusField(1),
  followed: bitField(
    2,
    { READING_0: 0, READING_1: 1, READING_2: 2, READING_3: 3 },
    "Readings whose changes the driver wants",
  ),
  reading0: reading(),
  reading1: reading(),
  reading2: reading(),
  reading3: reading(),
});

const queues = {
  eventq: { about: "Buffers for changes of readings, which the device fills", sender: "device" },
} as const;

/** Size of an event, in bytes. */
const EVENT_BYTES = 12;

/** A reading in config space, live. */
type Reading = { name: string; unit: string; value: number; sequence: number };

/** The state of both halves, which run on one thread. */
interface Shared {
  readonly readings: readonly Reading[];
  /** The indexes of changed readings that no buffer took yet. */
  readonly changed: Set<number>;
  /** Delivers changes; the data half sets it. */
  deliver(): void;
}

/** A sensor with up to four readings, of hwmon or of the control socket. */
export default defineDevice({
  name: "sensor",
  deviceId: 38,
  about: "A sensor with readings from hwmon or POST /set",
  module: import.meta.url,
  panel: import.meta.resolve("./panel.ts"),
  queues,
  config,
  threads: "main",
  options: {
    hwmon: {
      type: "text",
      placeholder: "DIR",
      about: "Offer the inputs of a directory such as /sys/class/hwmon/hwmon0",
    },
    interval: {
      type: "number",
      unit: "ms",
      placeholder: "MS",
      least: 10,
      most: 3_600_000,
      default: 1000,
      needs: "hwmon",
      about: "Read the inputs every MS milliseconds",
    },
  },

  async open({ options: { hwmon, interval }, config: view, announceConfig, log }) {
    const readings = [view.reading0, view.reading1, view.reading2, view.reading3];
    const shared: Shared = { readings, changed: new Set(), deliver() {} };

    function set(name: string, value: number, unit?: string) {
      if (value !== (value | 0)) {
        throw new RangeError(`Expected an integer of 32 bits as the value, got ${value}`);
      }
      let index = readings.findIndex((reading) => reading.name === name);
      if (index < 0) index = readings.findIndex((reading) => reading.name === "");
      if (index < 0) throw new RangeError(`Expected at most ${readings.length} readings`);
      const reading = readings[index];
      if (unit !== undefined) reading.unit = unit;
      reading.name = name;
      reading.value = value >>> 0;
      reading.sequence = (reading.sequence + 1) >>> 0;
      view.followed.offer(FOLLOWED[index]);
      if (view.followed.acknowledged(FOLLOWED[index])) shared.changed.add(index);
      announceConfig();
      shared.deliver();
      return report(reading);
    }

    for (const bit of FOLLOWED) view.followed.offer(bit, false);
    const inputs = hwmon === undefined ? [] : await findInputs(hwmon);
    if (inputs.length > readings.length) {
      log(`${hwmon} has ${inputs.length} inputs; the first ${readings.length} are offered`);
      inputs.length = readings.length;
    }
    for (const { name, unit, path } of inputs) set(name, await readInput(path), unit);

    const failing = new Set<string>();
    async function refresh(): Promise<void> {
      for (const [i, { name, path }] of inputs.entries()) {
        try {
          const value = await readInput(path);
          if (readings[i].value !== value >>> 0) set(name, value);
          failing.delete(name);
        } catch (error) {
          if (!failing.has(name)) log(`Cannot read ${name}: ${(error as Error).message}`);
          failing.add(name);
        }
      }
      timer = setTimeout(() => refreshed = refresh(), interval);
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    let refreshed = inputs.length > 0 ? refresh() : undefined;

    return {
      shared,
      onReset: () => shared.changed.clear(),
      commands: {
        set: {
          about: 'Set a reading: {"name": "door", "value": 1, "unit": "open"}',
          run(body) {
            const { name, value, unit } = (body ?? {}) as Record<string, unknown>;
            const isNamed = typeof name === "string" && /^[^\0]+$/.test(name);
            if (isNamed && typeof value === "number" && typeof (unit ?? "") === "string") {
              return set(name, value, unit as string | undefined);
            }
            throw new TypeError("Expected a name, a value and perhaps a unit");
          },
        },
      },
      report: () => ({
        readings: readings.filter(({ name }) => name !== "").map(report),
        failing: [...failing],
      }),
      async [Symbol.asyncDispose]() {
        await refreshed;
        clearTimeout(timer);
      },
    } satisfies OpenDevice<typeof queues, Record<never, never>, typeof config, Shared>;
  },

  handlers({ shared, queues }) {
    function deliver(eventq: QueueHandle): void {
      if (!eventq.isRunning) return;
      for (const index of shared.changed) {
        const chain = eventq.take();
        if (chain === null) break;
        if (chain.writableBytes < EVENT_BYTES) {
          const got = chain.writableBytes;
          return eventq.fail(
            new RangeError(`Expected a buffer of at least ${EVENT_BYTES} bytes, got ${got}`),
            chain,
          );
        }
        shared.changed.delete(index);
        chain.writable.setU32(0, index);
        chain.writable.setU32(4, shared.readings[index].value);
        chain.writable.setU32(8, shared.readings[index].sequence);
        eventq.complete(chain, EVENT_BYTES);
      }
      eventq.flush();
    }
    shared.deliver = () => deliver(queues.eventq[0]);
    return { queues: { eventq: deliver } };
  },
});

/** A reading as JSON. */
function report({ name, unit, value, sequence }: Reading) {
  return { name, unit, value: value | 0, sequence };
}
