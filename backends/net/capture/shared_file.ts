/**
 * A capture file for all ports of a process that name it, such as those of a switch: each is an
 * interface of the file.
 *
 * @module
 */

import { CaptureFile, CaptureStream, pcapng } from "../../../src/linux/mod.ts";

/** The bytes that wait for a reader: more are lost to it. */
export const MAX_READER_BYTES = 2 ** 23;

/** The type of all packets. */
export const LINKTYPE_ETHERNET = 1;

/** A file and its stream. */
interface OpenFile {
  readonly file: CaptureFile;
  readonly stream: CaptureStream;
  interfaces: number;
  /** Called when the file takes no more; one for each port that has not ended its part. */
  readonly onEnd: Set<() => void>;
}

/** The files of this process, by absolute path. */
const openFiles = new Map<string, OpenFile>();

/** A port's part in a file. */
export class SharedFile implements AsyncDisposable {
  readonly #key: string;
  readonly #open: OpenFile;
  readonly #interfaceId: number;
  readonly #onEnd: () => void;

  /**
   * Opens a file, or adds an interface to the one that is open.
   *
   * @param name The name of the interface.
   * @param maxBytes The size of the file at which the capture ends.
   * @param onEnd Called when it has ended early.
   * @throws {LinuxError} When it cannot be opened.
   * @throws {TypeError} When something other than a file is there.
   */
  constructor(
    path: string,
    name: string,
    { snapBytes, maxBytes }: { snapBytes: number; maxBytes: number },
    log: (message: string) => void,
    onEnd: () => void,
  ) {
    this.#key = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
    let open = openFiles.get(this.#key);
    if (open === undefined) {
      const file = new CaptureFile(path, { maxBytes, flag: "--pcap-max" }, log);
      const onEnd = new Set<() => void>();
      const header = pcapng.fileHeader(LINKTYPE_ETHERNET, [], snapBytes);
      const stream = new CaptureStream(header, MAX_READER_BYTES, () => {
        for (const end of onEnd) end();
      });
      open = { file, stream, interfaces: 0, onEnd };
      openFiles.set(this.#key, open);
      file.write(stream.stream);
    }
    this.#open = open;
    this.#interfaceId = open.interfaces++;
    this.#onEnd = onEnd;
    open.onEnd.add(onEnd);
    if (this.#isOpen) {
      open.stream.describe(pcapng.interfaceBlock(LINKTYPE_ETHERNET, name, snapBytes));
    }
  }

  get #isOpen(): boolean {
    return this.#open.file.state === "open";
  }

  /** Adds whole blocks with packets of its interface. */
  give(blocks: Uint8Array<ArrayBuffer>): void {
    // It had ended when this port joined it.
    if (!this.#isOpen) return this.#onEnd();
    const own = blocks.slice(); // other readers have the same blocks
    pcapng.setInterface(own, this.#interfaceId);
    this.#open.stream.give(own, this.#interfaceId);
  }

  /** Counts packets that were lost before they came here. */
  lose(packets: number): void {
    this.#open.stream.lose(packets, this.#interfaceId);
  }

  /** Writes to the file how many packets are lost. */
  tell(): void {
    this.#open.stream.tell();
  }

  toJSON(): unknown {
    return this.#open.file;
  }

  /** Ends its part; the last one ends the file, and waits a moment until it is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { file, stream, onEnd } = this.#open;
    onEnd.delete(this.#onEnd);
    if (onEnd.size > 0) return;
    openFiles.delete(this.#key);
    if (this.#isOpen) stream.end();
    await file[Symbol.asyncDispose]();
  }
}
