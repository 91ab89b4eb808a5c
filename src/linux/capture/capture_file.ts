/**
 * Capture files of limited size.
 *
 * @module
 */

import { AppendedFile } from "../file/appended_file.ts";
import { wholeBlocks } from "./pcapng.ts";

/** Time to write the end of a file when it is closed. */
const CLOSING_MS = 2000;

/** A pcapng file that is written from a stream until it is full. */
export class CaptureFile implements AsyncDisposable {
  /** Its path. */
  readonly path: string;
  /** Bytes written. */
  bytes = 0;
  /** `full` and `failed`: it takes no more. */
  state: "open" | "full" | "failed" = "open";
  readonly #file: AppendedFile;
  readonly #limit: { readonly maxBytes: number; readonly flag: string };
  readonly #log: (message: string) => void;
  #written: Promise<void> = Promise.resolve();

  /**
   * Creates a file that only its owner may read, or empties the one at that path.
   *
   * @param limit Its largest size, and the flag that sets it.
   * @param log Prints why the capture has ended early.
   * @throws {LinuxError} When it cannot be opened.
   * @throws {TypeError} When something other than a file is there.
   */
  constructor(
    path: string,
    limit: { readonly maxBytes: number; readonly flag: string },
    log: (message: string) => void,
  ) {
    this.path = path;
    this.#limit = limit;
    this.#log = log;
    this.#file = new AppendedFile(path);
  }

  /** Writes a stream of whole blocks, until it ends or the file can take no more. Called once. */
  write(stream: ReadableStream<Uint8Array<ArrayBuffer>>): void {
    this.#written = this.#write(stream);
  }

  async #write(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    using file = this.#file;
    const { maxBytes, flag } = this.#limit;
    try {
      for await (const blocks of stream) {
        const count = wholeBlocks(blocks, maxBytes - this.bytes);
        await file.write(blocks.subarray(0, count));
        this.bytes += count;
        if (count === blocks.length) continue;
        this.state = "full";
        this.#log(`${this.path} is full: ${flag} is ${maxBytes} bytes; the capture has ended`);
        return;
      }
    } catch (error) {
      this.state = "failed";
      this.#log(`${this.path}: ${(error as Error).message}; the capture into it has ended`);
    }
  }

  /** Waits a moment until everything of a stream that has ended is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, CLOSING_MS));
    await Promise.race([this.#written, late]);
    clearTimeout(timer);
  }
}
