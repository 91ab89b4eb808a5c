/** A network whose answer to a frame is what the frame's first byte of payload asks for. */
import { defineNetwork, type NetworkPort } from "../../../backends/net/handler/mod.ts";

/** What a frame asks for. */
export const Ask = {
  NOTHING: 0,
  ECHO: 1,
  /** As many copies as the next byte says, in one answer. */
  COPIES: 2,
  THROW: 3,
  REJECT: 4,
  /** An echo after a timer, in place until then. */
  LATER: 5,
  TINY: 6,
  OVERSIZE: 7,
  NO_FRAME: 8,
  /** 1000 echos by the port. */
  FLOOD: 9,
  /** Errors that no call of the network throws. */
  STRAY: 10,
  /** An error that has no text. */
  NO_ERROR: 11,
} as const;

let count = 0;

/** The network with its options. */
export default defineNetwork({
  options: {
    greeting: { type: "text", placeholder: "TEXT", about: "What it says first", default: "" },
    fail: { type: "flag", about: "Fail at the beginning" },
    failAtEnd: { type: "flag", about: "Fail at the end" },
  },
  async open(port) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (port.options.fail) throw new RangeError("Not today");
    const { greeting } = port.options;
    const hello = new Uint8Array(14 + greeting.length);
    hello.set(new TextEncoder().encode(greeting), 14);
    if (greeting !== "") setTimeout(() => port.send(hello), 1);
  },
  packet(frame, port: NetworkPort) {
    count++;
    switch (frame[14]) {
      case Ask.ECHO:
        return frame;
      case Ask.COPIES:
        return Array(frame[15]).fill(frame);
      case Ask.THROW:
        throw new Error("No packets today");
      case Ask.REJECT:
        return Promise.reject(new Error("No answers today"));
      case Ask.LATER:
        return new Promise((resolve) => setTimeout(() => resolve(frame), 1));
      case Ask.TINY:
        return new Uint8Array(13);
      case Ask.OVERSIZE:
        return [new Uint8Array(18 + port.mtu), new Uint8Array(19 + port.mtu)];
      case Ask.NO_FRAME:
        return "hello" as unknown as Uint8Array;
      case Ask.STRAY:
        setTimeout(() => {
          throw new Error("No timers today");
        }, 1);
        void Promise.reject(new Error("No promises today"));
        return;
      case Ask.NO_ERROR:
        throw Object.create(null);
      case Ask.FLOOD: {
        let sent = 0;
        while (sent < 1000 && port.send(frame)) sent++;
      }
    }
  },
  report: () => ({ count }),
  close({ options: { failAtEnd } }) {
    if (failAtEnd) throw new Error("No end today");
  },
});
