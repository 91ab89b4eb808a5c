/**
 * Lines of a stream of bytes.
 *
 * @module
 */

/** The longest line, in characters: many times the state of any device. */
export const MAX_LINE_CHARACTERS: number = 2 ** 24;

/**
 * Yields the lines of a stream; the rest after the last line feed is none.
 *
 * @throws {RangeError} When a line is too long.
 */
export async function* linesOf(stream: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    const text = decoder.decode(bytes, { stream: true });
    let from = 0;
    // Only what is new is searched: a line may come in hundreds of pieces
    for (let end; (end = text.indexOf("\n", from)) >= 0; from = end + 1) {
      yield rest + text.slice(from, end);
      rest = "";
    }
    rest += text.slice(from);
    if (rest.length > MAX_LINE_CHARACTERS) {
      throw new RangeError(`Expected lines of at most ${MAX_LINE_CHARACTERS} characters`);
    }
  }
}

/**
 * The whole text of a stream.
 *
 * @param what What it should be, and where it comes from, for the message.
 * @throws {RangeError} When it is longer than `mostBytes`.
 */
export async function textOf(
  stream: ReadableStream<Uint8Array> | null,
  mostBytes: number,
  { what, path }: { what: string; path: string },
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const piece of stream ?? []) {
    bytes += piece.length;
    if (bytes > mostBytes) {
      throw new RangeError(`Expected ${what} of at most ${mostBytes} bytes in ${path}, got more`);
    }
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}
