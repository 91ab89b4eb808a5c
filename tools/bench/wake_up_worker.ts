/** The thread that is woken. */
import { drainEventfd } from "../../src/linux/mod.ts";
import { Epoll, EPOLLIN } from "../../src/linux/wait/epoll.ts";
import { readClock } from "../lib/clock.ts";

/** What it waits for. */
export interface WakeUpOrder {
  eventfd: number;
  /** Word 0: when the signal was sent. */
  sent: SharedArrayBuffer;
  count: number;
}

declare const self: {
  onmessage: (event: MessageEvent<WakeUpOrder>) => void;
  postMessage(nanoseconds: number): void;
};

self.onmessage = ({ data: { eventfd, sent, count } }) => {
  const words = new Int32Array(sent);
  using epoll = new Epoll();
  epoll.add(eventfd, EPOLLIN, 0);
  self.postMessage(0);
  for (let i = 0; i < count; i++) {
    while (epoll.wait(-1) === 0);
    const now = readClock();
    drainEventfd(eventfd);
    self.postMessage((now - Atomics.load(words, 0)) >>> 0);
  }
};
