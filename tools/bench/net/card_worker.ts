/** A thread that sends packets with one network card and receives them with another; it never sleeps. */
import {
  type DriverQueueHandle,
  openDriverQueue,
  type SharedRegionHandle,
  viewSharedMemory,
} from "../../../src/frontend/mod.ts";

/** The buffers of a queue. */
export interface CardBuffers {
  memory: SharedRegionHandle[];
  queue: DriverQueueHandle;
  gpas: number[];
  /** The size of each. */
  bytes: number;
}

/** What the thread is to do. */
export interface CardOrder {
  send: CardBuffers;
  receive: CardBuffers;
  /** Two 32-bit integers: the packets that came, and whether to end. */
  state: SharedArrayBuffer;
}

export const RECEIVED = 0, IS_OVER = 1;

const NUM_BUFFERS = 10; // virtio 1.3, 5.1.6

/** Turns between two looks at whether to end. */
const TURNS = 1024;

declare const self: {
  onmessage: (event: MessageEvent<CardOrder>) => void;
  postMessage(message: null): void;
};

self.onmessage = ({ data }) => {
  run(data);
  self.postMessage(null);
};

function run({ send, receive, state: memory }: CardOrder): void {
  const state = new Int32Array(memory);
  const from = open(send, false), to = open(receive, true);
  let left = 0, received = 0;
  while (Atomics.load(state, IS_OVER) === 0) {
    for (let turn = 0; turn < TURNS; turn++) {
      for (let id = from.queue.poll(); id >= 0; id = from.queue.poll()) from.give(id);
      if (from.queue.publish()) from.queue.kick();
      for (let id = to.queue.poll(); id >= 0; id = to.queue.poll()) {
        if (left === 0) left = to.headers[to.bufferOf[id]].getUint16(NUM_BUFFERS, true);
        if (--left === 0) received++;
        to.give(id);
      }
      if (to.queue.publish()) to.queue.kick();
    }
    Atomics.store(state, RECEIVED, received);
  }
}

/** Opens a queue whose buffers the device has. */
function open({ memory: handle, queue: queueHandle, gpas, bytes }: CardBuffers, writable: boolean) {
  const memory = viewSharedMemory(handle);
  const queue = openDriverQueue(memory, queueHandle);
  const headers = gpas.map((gpa) => {
    const { buffer, byteOffset } = memory.at(gpa, bytes);
    return new DataView(buffer, byteOffset, bytes);
  });
  const bufferOf = new Uint16Array(queue.size);
  const give = (id: number) => add(bufferOf[id]);
  const add = (buffer: number) => {
    queue.begin(1);
    queue.descriptor(gpas[buffer], bytes, writable);
    bufferOf[queue.end()] = buffer;
  };
  queue.disarm();
  for (let buffer = 0; buffer < gpas.length; buffer++) add(buffer);
  return { queue, headers, bufferOf, give };
}
