/**
 * The control half of a capture: takes packets from the threads, and gives them to a file and to
 * clients of the control socket.
 *
 * @module
 */

import { OptionError, type Options, type OptionValues } from "../../../mod.ts";
import { CaptureStream, pcapng } from "../../../src/linux/mod.ts";
import { MAX_FRAME_BYTES } from "../packet.ts";
import { type CapturePlan, CaptureRing, ringMemory } from "./capture_ring.ts";
import { LINKTYPE_ETHERNET, MAX_READER_BYTES, SharedFile } from "./shared_file.ts";

/** The size at which a file ends if the user gives none. */
const PCAP_MAX_BYTES = 2 ** 30;

/** The options of captures. */
export const captureOptions = {
  pcap: { type: "text", placeholder: "FILE", about: "Capture packets into a pcapng file" },
  pcapSnap: {
    type: "number",
    unit: "bytes",
    placeholder: "BYTES",
    least: 1,
    most: MAX_FRAME_BYTES,
    default: MAX_FRAME_BYTES,
    about: "Capture the beginning of each frame only, also for GET /pcap",
  },
  pcapMax: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 4096,
    default: PCAP_MAX_BYTES,
    about: "End the file at this size",
    needs: "pcap",
  },
} as const satisfies Options;

/** The most clients that read a capture. */
const MAX_READERS = 8;

/** Time between two looks at the rings while packets come. */
const PERIOD_MS = 10;

/** What a recorder needs of its card. */
export interface RecorderContext {
  /** The name of the interface in the file. */
  readonly name: string;
  /** The number of pairs of queues. */
  readonly pairs: number;
  /** Makes the data half capture packets, or stop it with null. */
  post(plan: CapturePlan | null): Promise<unknown>;
  /** Prints a line for the person who runs the device. */
  log(message: string): void;
}

/** Captures the packets of a card while there is a file or a client that takes them. */
export class Recorder implements AsyncDisposable {
  /** What the data half gets at the start. */
  readonly plan: CapturePlan | null;
  readonly #options: OptionValues<typeof captureOptions>;
  readonly #context: RecorderContext;
  readonly #clients = new Set<CaptureStream>();
  readonly #file: SharedFile | undefined;
  /** The clients, and the file while it takes packets. */
  readonly #readers = new Set<CaptureStream | SharedFile>();
  /** A ring for each pair while packets are captured. */
  #rings: CaptureRing[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** How many packets of these rings the readers know to be lost. */
  #lost = 0;
  /** The counts of earlier rings. */
  #earlier = { captured: 0, lost: 0 };

  /** @throws {OptionError} When the file cannot be written. */
  constructor(options: OptionValues<typeof captureOptions>, context: RecorderContext) {
    this.#options = options;
    this.#context = context;
    const { pcap: path, pcapMax } = options;
    this.plan = path === undefined ? null : this.#begin();
    if (path === undefined) return;
    try {
      const limits = { snapBytes: options.pcapSnap, maxBytes: pcapMax };
      const { name, log } = context;
      const file = new SharedFile(path, name, limits, log, () => this.#remove(file));
      this.#readers.add(this.#file = file);
    } catch (error) {
      clearTimeout(this.#timer);
      throw new OptionError(`--pcap=${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  /** Takes the message of a thread that has packets: it sends one when it was asked to. */
  readonly onMessage = (): void => {
    this.#timer ??= setTimeout(() => this.#look());
  };

  /**
   * Opens the capture for a client: a pcapng file from now on, without end.
   *
   * @throws {RangeError} When there are too many.
   */
  async open(): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    if (this.#clients.size >= MAX_READERS) {
      throw new RangeError(`Expected at most ${MAX_READERS} readers of packets at a time`);
    }
    const begins = this.#rings.length === 0;
    const plan = begins ? this.#begin() : undefined;
    const header = pcapng.fileHeader(
      LINKTYPE_ETHERNET,
      [this.#context.name],
      this.#options.pcapSnap,
    );
    const client = new CaptureStream(header, MAX_READER_BYTES, () => this.#remove(client));
    this.#clients.add(client);
    this.#readers.add(client);
    try {
      if (plan !== undefined) await this.#context.post(plan);
    } catch (error) {
      this.#remove(client);
      throw error;
    }
    return client.stream;
  }

  #begin(): CapturePlan {
    const rings = Array.from({ length: this.#context.pairs }, ringMemory);
    this.#rings = rings.map((memory) => new CaptureRing(memory));
    this.#lost = 0;
    this.onMessage();
    return { rings, snapBytes: this.#options.pcapSnap };
  }

  #remove(reader: CaptureStream | SharedFile): void {
    this.#readers.delete(reader);
    this.#clients.delete(reader as CaptureStream);
    if (this.#readers.size > 0) return;
    this.#earlier = this.#counts;
    this.#rings = [];
    this.#context.post(null).catch(() => {}); // the device may be closing
  }

  /** Gives readers what there is, again and again while there is something. */
  #look(): void {
    this.#timer = undefined;
    const isIdle = !this.#drain() && this.#rings.map((ring) => ring.await()).every((idle) => idle);
    if (isIdle) { for (const reader of this.#readers) reader.tell(); }
    else this.#timer = setTimeout(() => this.#look(), PERIOD_MS);
  }

  /** Gives readers what there is; returns whether there was something. */
  #drain(): boolean {
    const pieces = this.#rings.flatMap((ring) => ring.take());
    for (const reader of this.#readers) for (const piece of pieces) reader.give(piece);
    const lost = this.#rings.reduce((sum, ring) => sum + ring.lost, 0);
    if (lost > this.#lost) { for (const reader of this.#readers) reader.lose(lost - this.#lost); }
    this.#lost = lost;
    return pieces.length > 0;
  }

  get #counts(): { captured: number; lost: number } {
    let { captured, lost } = this.#earlier;
    for (const ring of this.#rings) {
      captured += ring.captured;
      lost += ring.lost;
    }
    return { captured, lost };
  }

  /** Returns what it adds to the record; nothing if no packets were captured. */
  report(): Record<string, unknown> {
    const counts = this.#counts;
    if (this.#rings.length === 0 && counts.captured === 0) return {};
    return { pcap: { ...counts, readers: this.#readers.size, file: this.#file } };
  }

  /** Ends the capture, and waits a moment until the file is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer);
    this.#drain();
    for (const client of this.#clients) client.end();
    this.#clients.clear();
    this.#readers.clear();
    await this.#file?.[Symbol.asyncDispose]();
  }
}
