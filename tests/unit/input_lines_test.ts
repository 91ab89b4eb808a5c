import { assertEquals } from "@std/assert";
import {
  JsonLineWriter,
  LINE_CHARACTERS_MAX,
  LINES_WAITING_MAX,
  readLines,
} from "../../backends/input/lines.ts";

async function linesOf(...chunks: (string | Uint8Array)[]): Promise<[number, string][]> {
  const lines: [number, string][] = [];
  const encoder = new TextEncoder();
  await readLines(
    ReadableStream.from(
      chunks.map((chunk) => typeof chunk === "string" ? encoder.encode(chunk) : chunk),
    ).getReader(),
    {
      onLine: (line, number) => void lines.push([number, line]),
      onTooLong: (number) => lines.push([number, "too long"]),
    },
  );
  return lines;
}

Deno.test("readLines() returns lines however they are divided", async () => {
  assertEquals(await linesOf("a\nb", "c", "\n\n", "d"), [[1, "a"], [2, "bc"], [4, "d"]]);
  assertEquals(await linesOf("a\r\n  \n"), [[1, "a\r"]]);
  assertEquals(await linesOf(), []);
});

Deno.test("readLines() joins a divided character", async () => {
  assertEquals(await linesOf(Uint8Array.of(0xc3), Uint8Array.of(0xa9, 0x0a)), [[1, "é"]]);
});

Deno.test("readLines() skips a line that is too long, and continues", async () => {
  const half = "x".repeat(LINE_CHARACTERS_MAX / 2);
  assertEquals(
    (await linesOf(half, half, "\n", half, half, "x", "xx", "\nnext\n"))
      .map(([number, line]) => [number, line.slice(0, 8)]),
    [[1, "xxxxxxxx"], [2, "too long"], [3, "next"]],
  );
});

Deno.test("JsonLineWriter writes lines in order, several at once when it can", async () => {
  const written: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const writer = new JsonLineWriter((bytes) => {
    written.push(new TextDecoder().decode(bytes));
    return promise;
  });
  writer.write({ a: 1 });
  writer.write(2);
  writer.write(3);
  resolve();
  await new Promise((done) => setTimeout(done));
  assertEquals(written, ['{"a":1}\n', "2\n3\n"]);
});

Deno.test("JsonLineWriter drops and counts lines that no process reads", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let calls = 0;
  const writer = new JsonLineWriter(() => (calls++, promise));
  for (let i = 0; i < LINES_WAITING_MAX + 6; i++) writer.write(i);
  assertEquals([calls, writer.dropped], [1, 5]);
  resolve();
  await new Promise((done) => setTimeout(done));
  assertEquals([calls, writer.dropped], [2, 5]);
});

Deno.test("JsonLineWriter counts lines that cannot be written", async () => {
  const writer = new JsonLineWriter(() => Promise.reject(new Deno.errors.BrokenPipe()));
  writer.write(1);
  await new Promise((done) => setTimeout(done));
  assertEquals(writer.dropped, 1);
});
