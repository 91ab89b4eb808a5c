/**
 * The changes of a device, from its control socket.
 *
 * @module
 */

import { linesOf } from "./lines.ts";

/** Bytes to read at once: more than a device's changes take. */
const READ_BYTES = 65_536;

/** Time without a line after which a device counts as gone: five heartbeats. */
const SILENCE_MS = 5_000;

/**
 * Yields the lines of `GET /changes`. It reads the connection itself: streams took most of the time
 * of an update (Deno 2.9).
 *
 * @param prefix The part of the path that names an instance.
 * @param pause Awaited after each read.
 * @throws {TypeError} When the device does not offer it.
 * @throws {Error} When it is silent for {@linkcode SILENCE_MS}.
 */
export async function* changeLines(
  path: string,
  prefix: string,
  pause: () => Promise<void> | undefined,
  signal: AbortSignal,
): AsyncGenerator<string> {
  using connection = await Deno.connect({ transport: "unix", path });
  const close = () => connection[Symbol.dispose]();
  signal.addEventListener("abort", close, { once: true });
  let isHeard = true;
  const timer = setInterval(() => isHeard ? isHeard = false : close(), SILENCE_MS / 2);
  try {
    const request = `GET ${prefix}/changes HTTP/1.1\r\nhost: vhostd\r\n\r\n`;
    await connection.write(new TextEncoder().encode(request));
    const lines = linesOf(bytesOf(connection, async () => {
      isHeard = true;
      await pause();
    }));
    const { value: status = "" } = await lines.next();
    if (!status.startsWith("HTTP/1.1 200 ")) {
      throw new TypeError("Expected GET /changes: its vhostd is too old");
    }
    let head;
    do head = await lines.next(); while (!head.done && head.value !== "\r");
    yield* lines;
  } finally {
    clearInterval(timer);
    signal.removeEventListener("abort", close);
  }
}

async function* bytesOf(
  connection: Deno.Conn,
  pause: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  const bytes = new Uint8Array(READ_BYTES);
  for (;;) {
    const count = await connection.read(bytes);
    if (count === null) return;
    yield bytes.subarray(0, count);
    await pause();
  }
}
