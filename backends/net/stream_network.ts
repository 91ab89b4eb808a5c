/**
 * The control half of a stream port: makes the connections, one after the other.
 *
 * @module
 */

import { OptionError } from "../../mod.ts";
import {
  connectStream,
  EndpointError,
  type Fd,
  LinuxError,
  listenStream,
  lookUpStreamAddress,
  setNonblocking,
  type StreamAddress,
  UnixConnection,
} from "../../src/linux/mod.ts";
import { ALL_OFFLOADS, type Offload } from "./packet.ts";
import type { Network, StreamPlan } from "./port.ts";

/** Pause after the first failure, in milliseconds; it doubles with each further one. */
const FIRST_RETRY_MS = 20;

/** The longest pause, in milliseconds. */
const LAST_RETRY_MS = 1000;

/** A connection that ends sooner counts as a failure, in milliseconds. */
const LASTING_MS = 1000;

/**
 * The largest MTU with offloads. Between two kernels' TCP stacks they saved 45 to 65 % of the driver's
 * processor time per byte with an MTU of 1500, and up to 25 % of ours. With 65520, a driver's packets
 * are as large without them, and our checksums cost it a third of the speed.
 */
const MAX_DIVIDED_MTU = 1500;

/** Those of packets that the driver sends. */
const SENT_OFFLOADS = ALL_OFFLOADS.filter((name) => !name.startsWith("GUEST_"));

/** Where connections come from. */
export interface StreamSource {
  /** What the port is, for messages and the record: `stream HOST:PORT`. */
  readonly name: string;
  /** The largest IP packet, in bytes. */
  readonly mtu: number;
  /**
   * Makes the next connection; the last one has ended.
   *
   * @throws {Error} When there is none yet: a reason that may pass.
   */
  next(signal: AbortSignal): Promise<Fd>;
  /** Makes a pending call of `next` end. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A network with one port, on a stream socket that comes and goes. */
export class StreamNetwork implements Network {
  readonly plan: StreamPlan;
  readonly offloads: readonly Offload[];
  readonly mtu: number;
  readonly #source: StreamSource;
  readonly #log: (message: string) => void;
  readonly #link: UnixConnection;
  readonly #portLink: UnixConnection;
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #isConnected = false;
  #connections = 0;

  constructor(source: StreamSource, log: (message: string) => void) {
    [this.#link, this.#portLink] = UnixConnection.pair();
    this.plan = { kind: "stream", link: this.#portLink.fd.number };
    this.mtu = source.mtu;
    this.offloads = source.mtu <= MAX_DIVIDED_MTU ? SENT_OFFLOADS : [];
    this.#source = source;
    this.#log = log;
    this.#ended = this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let failures = 0;
    let hasSaid = false;
    while (!signal.aborted) {
      let isLasting = false;
      try {
        using connection = await this.#source.next(signal);
        if (signal.aborted) break;
        if (hasSaid) this.#log(`${this.#source.name}: connected`);
        hasSaid = false;
        const since = performance.now();
        await this.#lend(connection);
        isLasting = performance.now() - since >= LASTING_MS;
      } catch (error) {
        if (signal.aborted) break;
        const { message } = error as Error;
        if (!hasSaid) this.#log(`${this.#source.name}: retries until it works: ${message}`);
        hasSaid = true;
      }
      if (isLasting) failures = 0;
      else await pause(Math.min(FIRST_RETRY_MS * 2 ** failures++, LAST_RETRY_MS), signal);
    }
  }

  /** Gives the port a connection, and waits until it is done with it. */
  async #lend(connection: Fd): Promise<void> {
    setNonblocking(connection.number, true);
    this.#isConnected = true;
    this.#connections++;
    await this.#link.send(new Uint8Array(Int32Array.of(connection.number).buffer));
    await this.#link.receiveSome(new Uint8Array(1));
    this.#isConnected = false;
  }

  report(): Record<string, unknown> {
    const { name } = this.#source;
    return { port: name, connected: this.#isConnected, connections: this.#connections };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#source[Symbol.asyncDispose]();
    this.#link.shutdown();
    await this.#ended;
    await this.#link.close();
    await this.#portLink.close();
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const end = () => {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    resolve();
  };
  const timer = setTimeout(end, ms);
  signal.addEventListener("abort", end);
  return promise;
}

/** What the user gave. */
export interface StreamOptions {
  readonly stream?: string;
  readonly streamListen?: string;
  readonly mtu?: number;
}

/**
 * Opens the stream that the user named.
 *
 * @throws {OptionError} When it cannot be had.
 */
export async function openStreamNetwork(
  { stream, streamListen, mtu = 1500 }: StreamOptions,
  log: (message: string) => void,
): Promise<Network> {
  const flag = stream === undefined ? `--stream-listen=${streamListen}` : `--stream=${stream}`;
  try {
    const address = await lookUpStreamAddress(stream ?? streamListen!, stream === undefined);
    const source = stream === undefined ? listening(address, mtu) : connecting(address, mtu);
    return new StreamNetwork(source, log);
  } catch (error) {
    const isExplained = error instanceof EndpointError || error instanceof LinuxError ||
      error instanceof TypeError || error instanceof RangeError;
    if (!isExplained) throw error;
    throw new OptionError(`${flag}: ${error.message}`, { cause: error });
  }
}

/** Looks a name up for each connection: its host may move. */
function connecting(first: StreamAddress, mtu: number): StreamSource {
  const { text } = first;
  let address: StreamAddress | undefined = first;
  return {
    name: `stream to ${text}`,
    mtu,
    async next(signal) {
      const to = address ?? await beforeAbort(lookUpStreamAddress(text), signal);
      address = undefined;
      return await connectStream(to, signal);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Waits no longer than until `signal` aborts. */
async function beforeAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Takes one connection at a time; others wait in the backlog. */
function listening(address: StreamAddress, mtu: number): StreamSource {
  const listener = listenStream(address);
  let pending: Promise<UnixConnection | undefined> | undefined;
  return {
    name: `stream on ${address.text}`,
    mtu,
    async next() {
      const connection = await (pending = listener.accept());
      if (connection === undefined) throw new Error("the listener is closed");
      return connection.fd;
    },
    async [Symbol.asyncDispose]() {
      listener.stop();
      await pending?.catch(() => {});
      listener[Symbol.dispose]();
    },
  };
}
