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
  /** By interface: packets since it began, and those of them that are lost. */
  readonly #counts: { packets: number; lost: number; isUntold: boolean }[] = [];

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
      pull: () => this.tell(),
      cancel: onCancel,
    }, { highWaterMark: maxBytes, size: ({ length }) => length });
  }

  /** Adds a block that is no packet. */
  describe(block: Uint8Array<ArrayBuffer>): void {
    this.#controller.enqueue(block);
  }

  /** Adds whole blocks with packets of an interface; they become the reader's. */
  give(blocks: Uint8Array<ArrayBuffer>, interfaceId = 0): void {
    const packets = countPackets(blocks);
    if (this.#controller.desiredSize! < blocks.length) return this.lose(packets, interfaceId);
    this.#countsOf(interfaceId).packets += packets;
    this.tell();
    this.#controller.enqueue(blocks);
  }

  /** Counts packets that were lost before they came here. */
  lose(packets: number, interfaceId = 0): void {
    const counts = this.#countsOf(interfaceId);
    counts.packets += packets;
    counts.lost += packets;
    counts.isUntold = true;
  }

  #countsOf(interfaceId: number) {
    return this.#counts[interfaceId] ??= { packets: 0, lost: 0, isUntold: false };
  }

  /** Tells the reader how many packets are lost, unless it knows; when it has read enough. */
  tell(): void {
    if (this.#controller.desiredSize! > 0) this.#tellAll();
  }

  #tellAll(): void {
    this.#counts.forEach((counts, interfaceId) => {
      if (!counts.isUntold) return;
      counts.isUntold = false;
      const { packets, lost } = counts;
      const comment = `${lost} packets are not in this capture: they came too fast`;
      this.#controller.enqueue(statistics(interfaceId, packets, lost, comment, Date.now()));
    });
  }

  /** Ends the stream, with what it has. */
  end(): void {
    this.#tellAll();
    this.#controller.close();
  }
}
