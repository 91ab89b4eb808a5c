/**
 * JSON lines: in from stdin, out to stdout.
 *
 * @module
 */

/** The longest line that is read, in characters. */
export const LINE_CHARACTERS_MAX = 65_536;

/** What {@linkcode readLines} tells of. */
export interface LineHandlers {
  /** A line without its end; empty ones are left out. Further ones wait for what it returns. */
  onLine(line: string, number: number): void | Promise<void>;
  /** A line is too long and was skipped. */
  onTooLong(number: number): void;
}

/** Reads lines of UTF-8 until the stream ends or is cancelled. */
export async function readLines(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  { onLine, onTooLong }: LineHandlers,
): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  let number = 1;
  let isTooLong = false;
  const take = (text: string) => {
    if (isTooLong || rest.length + text.length > LINE_CHARACTERS_MAX) {
      isTooLong = true;
      rest = "";
    } else {
      rest += text;
    }
  };
  const end = async () => {
    if (isTooLong) onTooLong(number);
    else if (rest.trim() !== "") await onLine(rest, number);
    rest = "";
    isTooLong = false;
    number++;
  };
  for (;;) {
    const { value, done } = await reader.read();
    const parts = decoder.decode(value, { stream: !done }).split("\n");
    for (const [i, part] of parts.entries()) {
      if (i > 0) await end();
      take(part);
    }
    if (done) return await end();
  }
}

/** How many lines wait at the most for a reader that is slow. */
export const LINES_WAITING_MAX = 1024;

/**
 * Writes JSON lines without ever waiting: a guest must not stop the process by
 * saying more than the reader of the pipe takes. Lines beyond
 * {@linkcode LINES_WAITING_MAX} are dropped and counted.
 */
export class JsonLineWriter {
  readonly #write: (bytes: Uint8Array) => Promise<void>;
  #lines: string[] = [];
  #writing: Promise<void> | undefined;
  /** How many lines were dropped. */
  dropped = 0;

  /** Writes with `write`, which writes all of what it is given. */
  constructor(write: (bytes: Uint8Array) => Promise<void>) {
    this.#write = write;
  }

  /** Writes a value as a line, soon. */
  write(value: unknown): void {
    if (this.#lines.length >= LINES_WAITING_MAX) {
      this.dropped++;
      return;
    }
    this.#lines.push(JSON.stringify(value) + "\n");
    this.#writing ??= this.#drain();
  }

  async #drain(): Promise<void> {
    const encoder = new TextEncoder();
    while (this.#lines.length > 0) {
      const lines = this.#lines;
      this.#lines = [];
      try {
        await this.#write(encoder.encode(lines.join("")));
      } catch {
        this.dropped += lines.length; // the reader is gone
      }
    }
    this.#writing = undefined;
  }
}
