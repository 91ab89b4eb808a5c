/** A network device with a driver that sends and receives single packets. */
import { assert, assertEquals } from "@std/assert";
import net from "../../../backends/net/mod.ts";
import { type DeviceServer, serve } from "../../../mod.ts";
import {
  driverFeatures,
  type RequestResult,
  VirtioDriver,
  type VirtioDriverOptions,
} from "../../../src/frontend/mod.ts";
import { featureMask, transportMask } from "../../../src/virtio/mod.ts";

export const HEADER_BYTES = 12;

/** The fields of struct virtio_net_hdr: virtio 1.3, 5.1.6. */
export interface NetHeader {
  flags?: number;
  gsoType?: number;
  hdrLen?: number;
  gsoSize?: number;
  csumStart?: number;
  csumOffset?: number;
}

/** A packet as the driver gets it. */
export interface ReceivedPacket extends Required<NetHeader> {
  numBuffers: number;
  frame: Uint8Array;
}

/** A packet: its header and its frame. */
export function packet(frame: Uint8Array, header: NetHeader = {}): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + frame.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags ?? 0);
  view.setUint8(1, header.gsoType ?? 0);
  [header.hdrLen, header.gsoSize, header.csumStart, header.csumOffset].forEach((field, i) =>
    view.setUint16(2 + 2 * i, field ?? 0, true)
  );
  bytes.set(frame, HEADER_BYTES);
  return bytes;
}

/** An Ethernet frame of `bytes` bytes, whose content follows from `seed`. */
export function frame(bytes: number, seed = 0, destination = [2, 0, 0, 0, 0, 2]): Uint8Array {
  const frame = Uint8Array.from({ length: bytes }, (_, i) => i * 31 + seed * 17);
  frame.set([...destination, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
  return frame;
}

/** How the device and its driver are set up. */
export interface NetSetup extends VirtioDriverOptions {
  /** Acknowledge MRG_RXBUF. */
  mergeable?: boolean;
  /** Names of other features that the driver does not acknowledge. */
  without?: (keyof NonNullable<typeof net.features>)[];
  /** Do not acknowledge VERSION_1. */
  isLegacy?: boolean;
  pairs?: number;
  /** The sizes of the parts of each receive buffer. */
  buffer?: number[];
}

/** A network device, served, and its driver. */
export class NetDriver implements AsyncDisposable {
  /** Buffers that were given and not waited for, by pair. */
  readonly #posted: Promise<RequestResult>[][];

  readonly #server: DeviceServer | undefined;

  private constructor(
    server: DeviceServer | undefined,
    readonly driver: VirtioDriver,
    readonly setup: NetSetup,
    readonly made: AsyncDisposableStack,
  ) {
    this.#server = server;
    this.#posted = Array.from({ length: setup.pairs ?? 1 }, () => []);
  }

  /** The server, where it runs in this process. */
  get server(): DeviceServer {
    assert(this.#server !== undefined);
    return this.#server;
  }

  static async create(
    options: Record<string, unknown>,
    setup: NetSetup = {},
    log: (message: string) => void = () => {},
  ): Promise<NetDriver> {
    await using made = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir();
    made.defer(() => Deno.remove(directory, { recursive: true }));
    const socketPath = `${directory}/net.sock`;
    const { pairs = 1 } = setup;
    const server = made.use(
      await serve(net, { socketPath, options: { queuePairs: pairs, ...options }, log }),
    );
    const driver = made.use(await NetDriver.join(server, socketPath, setup));
    return new NetDriver(server, driver.driver, setup, made.move());
  }

  /** Starts the driver of a device that is served already. */
  static async join(
    server: DeviceServer | undefined,
    socketPath: string,
    setup: NetSetup = {},
  ): Promise<NetDriver> {
    await using made = new AsyncDisposableStack();
    const { pairs = 1, mergeable = true, without = [], packed = false, inOrder = false } = setup;
    let features = driverFeatures & ~transportMask("RING_PACKED", "IN_ORDER");
    if (setup.isLegacy) features &= ~transportMask("VERSION_1");
    for (const name of [...without, ...mergeable ? [] : ["MRG_RXBUF" as const]]) {
      features &= ~featureMask(net.features![name].bit);
    }
    const driver = made.use(
      await VirtioDriver.start(socketPath, {
        ...{ queues: 2 * pairs, features, packed, inOrder },
        ...setup,
      }),
    );
    return new NetDriver(server, driver, setup, made.move());
  }

  /** Sends a packet and waits until the device is done with it. */
  async send(bytes: Uint8Array, { pair = 0, parts = [bytes.length] } = {}): Promise<void> {
    let at = 0;
    const readable = parts.map((length) => bytes.subarray(at, at += length));
    assertEquals(at, bytes.length);
    assertEquals((await this.driver.request(2 * pair + 1, readable, [])).written, 0);
  }

  /** Gives the device receive buffers. */
  post(buffers: number, pair = 0): void {
    const parts = this.setup.buffer ?? [HEADER_BYTES + 1514];
    for (let i = 0; i < buffers; i++) {
      const request = this.driver.request(2 * pair, [], parts);
      request.catch(() => {});
      this.#posted[pair].push(request);
    }
  }

  /** Forgets the buffers: after a reset the device has none. */
  forget(): void {
    this.#posted.forEach((buffers) => buffers.length = 0);
  }

  /** Waits for a packet, for which buffers are posted. */
  async receive(pair = 0): Promise<ReceivedPacket> {
    const posted = this.#posted[pair];
    const bytes: number[] = [];
    let numBuffers = 1;
    for (let i = 0; i < numBuffers; i++) {
      assert(posted.length > 0, "Expected a posted buffer");
      const { written, data } = await posted.shift()!;
      bytes.push(...data.flatMap((part) => [...part]).slice(0, written));
      if (i === 0) numBuffers = bytes[10] | bytes[11] << 8;
    }
    const view = new DataView(Uint8Array.from(bytes).buffer);
    const u16 = (at: number) => view.getUint16(at, true);
    return {
      flags: bytes[0],
      gsoType: bytes[1],
      hdrLen: u16(2),
      gsoSize: u16(4),
      csumStart: u16(6),
      csumOffset: u16(8),
      numBuffers,
      frame: new Uint8Array(view.buffer, HEADER_BYTES),
    };
  }

  /** Runs a command of the control socket. */
  async command(name: string, body?: unknown): Promise<unknown> {
    return await this.server.host.control.commands![name].run(body);
  }

  // deno-lint-ignore no-explicit-any
  get report(): any {
    return this.server.record().report;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.made.disposeAsync();
  }
}
