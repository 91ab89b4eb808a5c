/** The guest's serial console, read and written by a program. */
import { withTimeout } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How much of what was read is kept for messages of failure. */
const LOG_LIMIT = 16_384;

/** The kernel's last words. */
const PANIC = "Kernel panic - not syncing";

/**
 * The text of the console is kept with one character per byte, so that a command's output comes
 * through whatever it is.
 */
export class Console {
  #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  #text = "";
  #log = "";
  #end: string | undefined;
  #changed = Promise.withResolvers<void>();
  #reading: Promise<void>;

  /** @param whyEnded Says why the guest has ended, once it has. */
  constructor(
    output: ReadableStream<Uint8Array<ArrayBuffer>>,
    input: WritableStream<Uint8Array<ArrayBuffer>>,
    whyEnded: () => Promise<string>,
  ) {
    this.#writer = input.getWriter();
    this.#reading = this.#read(output, whyEnded);
  }

  /** The last of what the guest printed, read or not. */
  get log(): string {
    return this.#log;
  }

  async write(text: string): Promise<void> {
    await this.#writer.write(toBytes(text));
  }

  /**
   * Reads up to a text, or a pattern that is looked for in all of what was not read yet; takes both
   * from the console and returns what came before.
   */
  async readUntil(end: string | RegExp, timeoutMs: number): Promise<string> {
    const shown = typeof end === "string" ? JSON.stringify(end) : end;
    return await withTimeout(
      this.#readUntil(end),
      timeoutMs,
      () => this.#explain(`${shown} has not come within ${timeoutMs} ms`),
    );
  }

  /** Ends reading; what the guest still prints is dropped. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#reading;
  }

  async #readUntil(end: string | RegExp): Promise<string> {
    while (true) {
      const [found, index = 0] = find(this.#text, end);
      if (found !== undefined) {
        const before = this.#text.slice(0, index);
        this.#text = this.#text.slice(index + found.length);
        return before;
      }
      if (this.#end) throw new ToolError(this.#explain(this.#end));
      await this.#changed.promise;
    }
  }

  async #read(
    output: ReadableStream<Uint8Array<ArrayBuffer>>,
    whyEnded: () => Promise<string>,
  ): Promise<void> {
    for await (const chunk of output) {
      const text = toText(chunk);
      this.#text += text;
      this.#log = (this.#log + text).slice(-LOG_LIMIT);
      if (this.#log.includes(PANIC)) this.#end = "The guest's kernel panicked";
      this.#notify();
    }
    const why = await whyEnded();
    this.#end ??= why;
    this.#notify();
  }

  #notify(): void {
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers();
    resolve();
  }

  #explain(what: string): string {
    const tail = this.#log.trim().split(/[\r\n]+/).slice(-20).join("\n");
    return `${what}. The last on the guest's console:\n${tail}`;
  }
}

function find(text: string, end: string | RegExp): [found?: string, index?: number] {
  if (typeof end === "string") {
    const index = text.indexOf(end);
    return index < 0 ? [] : [end, index];
  }
  const found = text.match(end);
  return found ? [found[0], found.index] : [];
}

/** A text of one character per byte. */
export function toText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

/** The bytes of a text of one character per byte. */
export function toBytes(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
