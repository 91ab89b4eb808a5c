/** A device that posts buffers untakes them at a stop: nothing is lost, nothing comes twice. */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { serve } from "../../mod.ts";
import { FrontendError, VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { Random } from "../../tools/lib/random.ts";
import loopback, { HEADER_BYTES } from "./lib/loopback_device.ts";

const RECEIVEQ = 0, TRANSMITQ = 1;
const BUFFER_BYTES = 256;

/** Packets over a loopback device, each verified when it comes back. */
class Packets {
  readonly #driver: VirtioDriver;
  readonly #random: Random;
  readonly #transmitters: Promise<unknown>;
  /** Rejects when something is wrong, else never settles. */
  readonly #failure: Promise<never>;
  #sent = 0;
  #isStopping = false;
  /** Packets that came back. */
  received = 0;
  /** Bytes and remaining buffers of the packet that is being received. */
  #bytes: number[] = [];
  #buffersLeft = 0;
  #onReceived = () => {};
  /** Resolves when the driver runs. */
  #running: Promise<unknown> = Promise.resolve();

  constructor(driver: VirtioDriver, random: Random) {
    this.#driver = driver;
    this.#random = random;
    // Few enough buffers that packets wait for them.
    const receivers = Promise.all(Array.from({ length: 12 }, () => this.#receive()));
    this.#transmitters = Promise.all(Array.from({ length: 6 }, () => this.#transmit()));
    this.#failure = Promise.all([receivers, this.#transmitters]).then(() => new Promise(() => {}));
    this.#failure.catch(() => {});
  }

  /** The bytes of a packet; the first 4 are its number. */
  #packet(number: number, bytes: number): Uint8Array<ArrayBuffer> {
    const packet = Uint8Array.from({ length: bytes }, (_, i) => number * 31 + i * 7);
    new DataView(packet.buffer).setUint32(0, number);
    return packet;
  }

  /** Waits while the driver is stopped. */
  async #runs(): Promise<void> {
    if (this.#driver.running) return;
    await this.#running;
    assert(this.#driver.running, "Expected a driver that runs after its restart");
  }

  async #transmit(): Promise<void> {
    while (!this.#isStopping) {
      await this.#runs();
      const packet = this.#packet(this.#sent++, this.#random.between(4, 1400));
      await this.#driver.request(TRANSMITQ, [packet], []);
    }
  }

  async #receive(): Promise<void> {
    for (;;) {
      await this.#runs();
      try {
        const { written, data } = await this.#driver.request(RECEIVEQ, [], [BUFFER_BYTES]);
        this.#take(data[0].subarray(0, written));
      } catch (error) {
        if (error instanceof FrontendError && error.reason === "closed") return;
        throw error;
      }
    }
  }

  #take(bytes: Uint8Array): void {
    if (this.#buffersLeft === 0) {
      this.#buffersLeft = bytes[0] | bytes[1] << 8;
      bytes = bytes.subarray(HEADER_BYTES);
    }
    this.#bytes.push(...bytes);
    if (--this.#buffersLeft > 0) return;
    assertEquals(this.#bytes, [...this.#packet(this.received, this.#bytes.length)]);
    this.received++;
    this.#bytes = [];
    this.#onReceived();
  }

  /** Resolves when this many more packets came back. */
  async progress(count: number): Promise<void> {
    const wanted = this.received + count;
    const come = new Promise<void>((resolve) =>
      this.#onReceived = () => this.received >= wanted && resolve()
    );
    await Promise.race([come, this.#failure]);
  }

  /** Stops and restarts the driver; requests wait meanwhile. */
  async during(restart: () => Promise<void>): Promise<void> {
    await (this.#running = restart());
  }

  /** Sends no more, and expects that every packet comes back. */
  async end(): Promise<void> {
    this.#isStopping = true;
    await this.#transmitters;
    while (this.received < this.#sent) await this.progress(1);
    assertEquals(this.received, this.#sent);
  }
}

for (const packed of [false, true]) {
  for (const inOrder of [false, true]) {
    for (const inflight of [false, true]) {
      const name = `${packed ? "packed" : "split"}${inOrder ? ", in order" : ""}${
        inflight ? ", with an in-flight record" : ""
      }`;
      Deno.test(`posted buffers are untaken at each stop under load (${name})`, async () => {
        const seed = Math.floor(Math.random() * 2 ** 32);
        const random = new Random(seed);
        const directory = Deno.makeTempDirSync();
        const socketPath = `${directory}/s`;
        try {
          let server = await serve(loopback, { socketPath });
          await using closing = { [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
          void closing;
          const driver = await VirtioDriver.start(socketPath, {
            ...{ queues: [64, 64], packed, inOrder, inflight, timeoutMs: 60_000 },
          });
          {
            await using _ = driver;
            const packets = new Packets(driver, random);
            for (let round = 0; round < 12; round++) {
              await packets.progress(random.below(60));
              await packets.during(async () => {
                if (inflight && round % 4 === 3) {
                  // The next back-end finds nothing in flight.
                  await server[Symbol.asyncDispose]();
                  server = await serve(loopback, { socketPath });
                  await driver.reconnect();
                  const resubmitted = server.record().queues.map(({ resubmitted }) => resubmitted);
                  assertEquals(resubmitted, [0, 0]);
                } else {
                  await driver.stop();
                  assertEquals(server.record().queues.map(({ inFlight }) => inFlight), [0, 0]);
                  await driver.restart();
                }
              });
            }
            await packets.end();
            assertGreater(packets.received, 0);
            assertEquals(server.record().errors.total, 0);
          }
        } catch (error) {
          throw new Error(`With seed ${seed}`, { cause: error });
        }
        await watchesEnded();
        Deno.removeSync(directory, { recursive: true });
      });
    }
  }
}
