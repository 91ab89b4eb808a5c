/**
 * Requests to control sockets. `fetch` will not do: after 25 sockets without a listener, every
 * other one waits forever (Deno 2.9.6).
 *
 * @module
 */

/** The longest head of an answer, in bytes. */
const MAX_HEAD_BYTES = 16_384;

/** Bytes to read at once. */
const READ_BYTES = 65_536;

/** What a request sends, and when it is given up. */
export interface ControlRequestOptions {
  /** @default {"GET"} */
  method?: "GET" | "POST";
  body?: Uint8Array;
  signal?: AbortSignal;
  /** Called when the answer has ended, or there will be none. */
  onEnd?: () => void;
}

/**
 * Sends a request to a control socket.
 *
 * @param target The path of the request, such as `/record`.
 * @returns The answer; its body lasts as long as the connection.
 * @throws {Error} When nothing answers, or no HTTP, or the signal gives it up.
 */
export async function requestControl(
  path: string,
  target: string,
  { method = "GET", body = new Uint8Array(), signal, onEnd }: ControlRequestOptions = {},
): Promise<Response> {
  let connection: Deno.Conn | undefined;
  let isOver = false;
  const close = () => {
    connection?.[Symbol.dispose]();
    if (isOver) return;
    isOver = true;
    signal?.removeEventListener("abort", close);
    onEnd?.();
  };
  try {
    connection = await Deno.connect({ transport: "unix", path });
    signal?.throwIfAborted();
    signal?.addEventListener("abort", close);
    const fields = `host: vhostd\r\nconnection: close\r\ncontent-length: ${body.length}\r\n`;
    const head = `${method} ${target} HTTP/1.1\r\n${fields}\r\n`;
    await send(connection, new TextEncoder().encode(head));
    await send(connection, body);
    const { init, rest } = await readHead(connection);
    return new Response(bodyOf(connection, rest, close), init);
  } catch (error) {
    close();
    throw error;
  }
}

async function send(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

/** Reads the head of an answer, and what comes with it of the body. */
async function readHead(
  connection: Deno.Conn,
): Promise<{ init: ResponseInit; rest: Uint8Array<ArrayBuffer> }> {
  const bytes = new Uint8Array(MAX_HEAD_BYTES);
  for (let length = 0; length < bytes.length;) {
    const count = await connection.read(bytes.subarray(length));
    if (count === null) break;
    length += count;
    const text = new TextDecoder("latin1").decode(bytes.subarray(0, length));
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) continue;
    const [, status] = /^HTTP\/1\.1 (200|[45]\d\d) /.exec(text) ?? [];
    if (status === undefined) break;
    const [, type = ""] = /^content-type: *([\x20-\x7e]*)\r$/im.exec(text.slice(0, end + 1)) ?? [];
    const init = { status: Number(status), headers: { "content-type": type } };
    return { init, rest: bytes.slice(end + 4, length) };
  }
  throw new Error("Expected an answer of HTTP/1.1, got something else");
}

/** The rest of what comes on a connection. */
function bodyOf(
  connection: Deno.Conn,
  rest: Uint8Array<ArrayBuffer>,
  close: () => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    start(controller) {
      if (rest.length > 0) controller.enqueue(rest);
    },
    async pull(controller) {
      const bytes = new Uint8Array(READ_BYTES);
      try {
        const count = await connection.read(bytes);
        if (count !== null) return controller.enqueue(bytes.subarray(0, count));
      } catch (error) {
        close();
        throw error;
      }
      close();
      controller.close();
    },
    cancel: close,
  }, { highWaterMark: 0 });
}
