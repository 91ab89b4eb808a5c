/**
 * How long this machine takes to wake a thread whose processor sleeps: at small queue depths a
 * result is made of little else.
 */
import { createEventfd, drainEventfd, signalEventfd } from "../../src/linux/mod.ts";
import { Epoll, EPOLLIN } from "../../src/linux/wait/epoll.ts";
import { readClock } from "../lib/clock.ts";
import { type Summary, summary } from "./statistics.ts";

const WAKE_UPS = 200;
const PAUSE_MS = 2;

/** Microseconds from a signal until the thread that waits for it runs. */
export async function wakeUpUs(): Promise<Summary> {
  const sent = new Int32Array(new SharedArrayBuffer(4));
  using eventfd = createEventfd();
  const worker = new Worker(import.meta.url, { type: "module", name: THREAD });
  try {
    const answers = new ReadableStream<number>({
      start(controller) {
        worker.onmessage = ({ data }: MessageEvent<number>) => controller.enqueue(data);
        worker.onerror = (event) => {
          event.preventDefault();
          controller.error(new Error(event.message));
        };
      },
    }).getReader();
    const order: WakeUpOrder = { eventfd: eventfd.number, sent: sent.buffer, count: WAKE_UPS };
    worker.postMessage(order);
    const times: number[] = [];
    // The first answer only says that the thread waits.
    for (let i = 0; i <= WAKE_UPS; i++) {
      const { value } = await answers.read();
      if (i > 0) times.push(value! / 1000);
      if (i === WAKE_UPS) break;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      Atomics.store(sent, 0, readClock());
      signalEventfd(eventfd.number);
    }
    return summary(times)!;
  } finally {
    worker.terminate();
  }
}

/** What it waits for. */
interface WakeUpOrder {
  eventfd: number;
  /** Word 0: when the signal was sent. */
  sent: SharedArrayBuffer;
  count: number;
}

/** What the thread that is woken is called: this module is its, too. */
const THREAD = "sleeper";

declare const self: {
  name?: string;
  onmessage: (event: MessageEvent<WakeUpOrder>) => void;
  postMessage(nanoseconds: number): void;
};

if (self.name === THREAD) self.onmessage = ({ data }) => sleep(data);

function sleep({ eventfd, sent, count }: WakeUpOrder): void {
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
}
