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
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    if (rest.length > MAX_LINE_CHARACTERS) {
      throw new RangeError(`Expected lines of at most ${MAX_LINE_CHARACTERS} characters`);
    }
    yield* lines;
  }
}
