/**
 * A device for tests that echoes each request. The first byte chooses how it completes.
 *
 * @module
 */

import { type Chain, defineDevice, LATER, packed, u32, u8 } from "../../../mod.ts";

/** The first byte of a request. */
export const Answer = {
  NOW: 0,
  PROMISED: 1,
  LATER: 2,
  THROW: 3,
  REJECT: 4,
  TOO_MUCH: 5,
  NEVER: 6,
  PROMISE_TOO_MUCH: 7,
  /** A promise that resolves when the ring stops. */
  WHEN_STOPPED: 8,
} as const;

/** The echo device. */
export default defineDevice({
  name: "echo",
  deviceId: 42,
  about: "Answers with the request's own bytes",
  module: import.meta.url,
  queues: {
    requestq: { about: "Requests", family: "requestq", size: 256 },
    eventq: { about: "Buffers for events", sender: "device" },
  },
  features: {
    LOUD: { bit: 0, about: "Answers in capitals" },
    SHY: { bit: 5, about: "Is never offered" },
  },
  config: packed({
    serial: u32("A number that stays"),
    volume: u8("How loud it is", { access: "rw" }),
    state: u8("What the device thinks of that"),
  }),
  options: { queues: { type: "number", placeholder: "N", default: 1, about: "Request queues" } },
  open({ options, config, announceConfig }) {
    return {
      queues: { requestq: options.queues },
      offer: { SHY: false },
      config: { serial: 0x01020304, volume: 5 },
      onConfigWrite(write) {
        if (write.fields.some(({ after }) => after[0] > 11)) {
          throw new RangeError("Nobody wants that");
        }
      },
      onConfigWritten() {
        config.state = config.volume;
      },
      onReset() {
        config.state = 0;
      },
      commands: {
        louder: {
          about: "Raises the volume",
          run() {
            config.volume++;
            announceConfig();
            return { volume: config.volume };
          },
        },
      },
      report: () => ({ state: config.state }),
    };
  },
  handlers({ features, config, queues }) {
    function echo(chain: Chain): number {
      const bytes = new Uint8Array(Math.min(chain.readableBytes, chain.writableBytes));
      chain.readable.read(0, bytes);
      if (features.LOUD) {
        bytes.forEach((byte, i) => bytes[i] = byte >= 97 && byte <= 122 ? byte - 32 : byte);
      }
      if (bytes.length > 1 && bytes[1] === 63) bytes[1] = config.volume; // "?"
      return chain.writable.write(0, bytes);
    }
    const whenStopped: (() => void)[] = [];
    return {
      onStop() {
        for (const answer of whenStopped.splice(0)) answer();
      },
      queues: {
        eventq() {}, // events are sent when requests come
        requestq(chain, queue) {
          switch (chain.readable.u8(0)) {
            case Answer.PROMISED:
              return new Promise((resolve) => setTimeout(() => resolve(echo(chain)), 5));
            case Answer.WHEN_STOPPED:
              return new Promise((resolve) => whenStopped.push(() => resolve(echo(chain))));
            case Answer.LATER:
              setTimeout(() => {
                queue.complete(chain, echo(chain));
                queue.flush();
              }, 5);
              return LATER;
            case Answer.THROW:
              throw new RangeError("The device could not make sense of that");
            case Answer.REJECT:
              return Promise.reject(new Error("The device changed its mind"));
            case Answer.TOO_MUCH:
              return chain.writableBytes + 1;
            case Answer.PROMISE_TOO_MUCH:
              return Promise.resolve(chain.writableBytes + 1);
            case Answer.NEVER:
              return LATER;
            default: {
              const [events] = queues.eventq;
              const event = events?.take();
              if (event) {
                events.complete(
                  event,
                  event.writable.write(0, Uint8Array.of(chain.readable.u8(0))),
                );
                events.flush();
              }
              return echo(chain);
            }
          }
        },
      },
    };
  },
});
