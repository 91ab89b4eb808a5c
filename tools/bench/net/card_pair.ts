/** Two network cards with our own front-end: one sends large packets as fast as the other receives. */
import { driverFeatures, SharedMemory, VirtioDriver } from "../../../src/frontend/mod.ts";
import { type CardBuffers, type CardOrder, IS_OVER, RECEIVED } from "./card_worker.ts";

const HEADER_BYTES = 12;
const MEMORY_BYTES = 2 ** 26;

/** How many packets are on their way, and the buffers of the receiver: as many as Linux has. */
const PACKETS = 64, RING_SIZE = 1024, BUFFER_BYTES = 4096;

/** How many packets pass before the measurement, and how long that may take. */
const WARM_PACKETS = 50_000, MOST_WARM_MS = 5000;

/** The two cards of a switch; their addresses end in 1 and 2. */
export class CardPair implements AsyncDisposable {
  readonly #made: AsyncDisposableStack;
  readonly #state: Int32Array<SharedArrayBuffer>;

  private constructor(made: AsyncDisposableStack, state: Int32Array<SharedArrayBuffer>) {
    this.#made = made;
    this.#state = state;
  }

  /** Sends TCP segments that share a frame of `frameBytes` bytes, from one socket's card to another's. */
  static async start(paths: readonly string[], frameBytes: number): Promise<CardPair> {
    await using made = new AsyncDisposableStack();
    const drivers: VirtioDriver[] = [];
    for (const path of paths) {
      // Below 2 GiB: see `DriverRing`.
      const memory = made.use(new SharedMemory(MEMORY_BYTES));
      drivers.push(made.use(
        await VirtioDriver.start(path, {
          ...{ memory, features: driverFeatures, packed: true, inOrder: false },
          queues: [RING_SIZE, RING_SIZE],
        }),
      ));
    }
    const [from, to] = drivers;
    const order: CardOrder = {
      send: buffers(from, 1, PACKETS, HEADER_BYTES + frameBytes),
      receive: buffers(to, 0, RING_SIZE, BUFFER_BYTES),
      state: new SharedArrayBuffer(8),
    };
    for (const gpa of order.send.gpas) {
      from.memory.at(gpa, HEADER_BYTES + frameBytes).set(tcpHeaders(frameBytes));
    }
    const worker = new Worker(new URL("card_worker.ts", import.meta.url), { type: "module" });
    const state = new Int32Array(order.state);
    const ended = new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(`The thread of the front-end failed: ${event.message}`));
      };
    });
    made.defer(async () => {
      Atomics.store(state, IS_OVER, 1);
      await ended;
      worker.terminate();
    });
    worker.postMessage(order);
    return new CardPair(made.move(), state);
  }

  /** Waits until V8 has compiled what the back-end does with a packet: these are few per second. */
  async warm(): Promise<void> {
    const end = performance.now() + MOST_WARM_MS;
    while (this.received < WARM_PACKETS && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** How many packets came. */
  get received(): number {
    return Atomics.load(this.#state, RECEIVED);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#made.disposeAsync();
  }
}

function buffers(driver: VirtioDriver, queue: number, count: number, bytes: number): CardBuffers {
  const gpas = Array.from({ length: count }, () => driver.memory.alloc(bytes));
  return { memory: driver.memory.handle, queue: driver.queues[queue].handle, gpas, bytes };
}

/** The headers of a packet of TCP over IPv4 that stands for segments of 1448 bytes. */
function tcpHeaders(frameBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + 54);
  const view = new DataView(bytes.buffer);
  bytes.set([1, 1]); // NEEDS_CSUM, TCPV4
  [54, 1448, 34, 16].forEach((field, i) => view.setUint16(2 + 2 * i, field, true));
  bytes.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45], HEADER_BYTES);
  view.setUint16(HEADER_BYTES + 16, frameBytes - 14);
  bytes[HEADER_BYTES + 23] = 6;
  bytes[HEADER_BYTES + 46] = 0x50;
  return bytes;
}
