/**
 * Streams of a pcapng file.
 *
 * @module
 */

import { countPackets, statistics } from "./pcapng.ts";

/**
 * A pcapng file as a stream, for a reader that may be slow. Packets for which it has no room are
 * lost to that reader; an Interface Statistics Block says how many.
 */
export class CaptureStream {
  /** The file, block by block. */
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  #controller!: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>>;
  /** Packets since it began, and those of them that are lost. */
  #packets = 0;
  #lost = 0;
  #untold = false;

  /**
   * Begins a stream.
   *
   * @param header The file's first blocks.
   * @param maxBytes The most bytes that wait for the reader.
   * @param onCancel Called when the reader has ended the stream.
   */
  constructor(
    header: readonly Uint8Array<ArrayBuffer>[],
    maxBytes: number,
    onCancel: () => void,
  ) {
    this.stream = new ReadableStream<Uint8Array<ArrayBuffer>>({
      start: (controller) => {
        this.#controller = controller;
        for (const block of header) controller.enqueue(block);
      },
      cancel: onCancel,
    }, { highWaterMark: maxBytes, size: ({ length }) => length });
  }

  /** Adds whole blocks, which become the reader's. */
  give(blocks: Uint8Array<ArrayBuffer>): void {
    const packets = countPackets(blocks);
    this.#packets += packets;
    if (this.#controller.desiredSize! < blocks.length) {
      this.#lost += packets;
      this.#untold = true;
      return;
    }
    this.tell();
    this.#controller.enqueue(blocks);
  }

  /** Counts packets that were lost before they came here. */
  lose(packets: number): void {
    this.#packets += packets;
    this.#lost += packets;
    this.#untold = true;
  }

  /** Tells the reader how many packets are lost, unless it knows. */
  tell(): void {
    if (!this.#untold) return;
    this.#untold = false;
    const comment = `${this.#lost} packets are not in this capture: they came too fast`;
    this.#controller.enqueue(statistics(this.#packets, this.#lost, comment, Date.now()));
  }

  /** Ends the stream, with what it has. */
  end(): void {
    this.tell();
    this.#controller.close();
  }
}
