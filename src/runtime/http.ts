/**
 * The part of HTTP/1.1 that a control socket needs: one request per connection, and its answer.
 *
 * Source: RFC 9112 HTTP/1.1.
 *
 * @module
 */

import { concat } from "@std/bytes";
import type { UnixConnection } from "../linux/mod.ts";

/** The longest request line with its header fields, in bytes. */
const MAX_HEAD_BYTES = 16_384;

/** The longest line with the size of a chunk, in bytes. */
const MAX_CHUNK_LINE_BYTES = 256;

/** Number of bytes to receive at once. */
const PIECE_BYTES = 8192;

/** A request that gets an error as its answer. */
export class HttpError extends Error {
  /** The status of the answer. */
  readonly status: number;
  /** Header fields of the answer. */
  readonly headers: Record<string, string>;

  /** @param status The status of the answer. */
  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** An answer. */
export interface HttpAnswer {
  /** The status. */
  readonly status: number;
  /** JSON with the end of the line, or bytes that may have no end. */
  readonly body: string | ReadableStream<Uint8Array>;
  /** Further header fields. */
  readonly headers?: Record<string, string>;
}

/** Limits of a request. */
export interface HttpLimits {
  /** The largest body, in bytes. */
  bodyBytes: number;
  /** Time for which a connection may be silent, in milliseconds. */
  idleMs: number;
}

// RFC 9110, 15 Status Codes
const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

/** A request whose head was read. The connection stays the caller's. */
export class HttpRequest {
  /** The method, such as `GET`. */
  method = "";
  /** The path, such as `/record`. */
  path = "/";
  readonly #connection: UnixConnection;
  readonly #limits: HttpLimits;
  #headers: Record<string, string> = {};
  /** Bytes that were received and not read yet. */
  #bytes = new Uint8Array();

  private constructor(connection: UnixConnection, limits: HttpLimits) {
    this.#connection = connection;
    this.#limits = limits;
  }

  /**
   * Reads the head of a request.
   *
   * @returns Undefined if the connection ends before the request.
   * @throws {HttpError} When it is not HTTP/1.
   */
  static async read(
    connection: UnixConnection,
    limits: HttpLimits,
  ): Promise<HttpRequest | undefined> {
    const request = new HttpRequest(connection, limits);
    const head = await request.#until("\r\n\r\n", MAX_HEAD_BYTES, 431);
    if (head === undefined) return undefined;
    const [first, ...lines] = head.split("\r\n");
    const [, method, target] = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(first) ?? [];
    // Clients of a proxy send a whole URL
    const url = target === undefined ? null : URL.parse(target, "http://localhost");
    if (url === null) throw new HttpError(400, "Expected a request of HTTP/1.1");
    request.method = method;
    request.path = url.pathname;
    request.#headers = Object.fromEntries(lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }));
    return request;
  }

  /**
   * Reads the body. A body that is too large is read too, up to a limit, because its sender may
   * read the answer only after sending.
   *
   * @throws {HttpError} When it is too large, or ends early.
   */
  async body(): Promise<Uint8Array> {
    const { bodyBytes } = this.#limits;
    const pieces: Uint8Array[] = [];
    let total = 0;
    const take = async (bytes: number) => {
      for (let rest = bytes; rest > 0;) {
        if (this.#bytes.length === 0 && !await this.#more()) throw endedEarly();
        const piece = this.#bytes.subarray(0, rest);
        this.#bytes = this.#bytes.subarray(piece.length);
        rest -= piece.length;
        total += piece.length;
        if (total <= bodyBytes) pieces.push(piece);
        else if (total > 16 * bodyBytes) throw tooLarge(bodyBytes);
      }
    };
    if (this.#headers.expect === "100-continue") {
      await send(this.#connection, "HTTP/1.1 100 Continue\r\n\r\n", this.#limits.idleMs);
    }
    const coding = this.#headers["transfer-encoding"];
    if (coding === undefined) {
      const length = this.#headers["content-length"] ?? "0";
      if (!/^\d{1,15}$/.test(length)) throw new HttpError(400, "Expected a content-length");
      await take(Number(length));
    } else if (coding.toLowerCase() === "chunked") {
      for (;;) {
        const line = await this.#until("\r\n", MAX_CHUNK_LINE_BYTES, 400);
        const [, size] = /^([0-9a-f]{1,8})\s*(?:;.*)?$/i.exec(line ?? "") ?? [];
        if (size === undefined) throw new HttpError(400, "Expected the size of a chunk");
        if (/^0+$/.test(size)) break;
        await take(parseInt(size, 16));
        if (await this.#until("\r\n", 2, 400) !== "") throw endedEarly();
      }
    } else throw new HttpError(400, `Expected chunks, got transfer-encoding ${coding}`);
    if (total > bodyBytes) throw tooLarge(bodyBytes);
    return concat(pieces);
  }

  /** Reads the text before `end`, and `end`; undefined if the stream ends first. */
  async #until(end: string, most: number, status: number): Promise<string | undefined> {
    for (;;) {
      const text = new TextDecoder("latin1").decode(this.#bytes.subarray(0, most));
      const at = text.indexOf(end);
      if (at >= 0) {
        this.#bytes = this.#bytes.subarray(at + end.length);
        return text.slice(0, at);
      }
      if (text.length === most) throw new HttpError(status, `Expected at most ${most} bytes`);
      if (!await this.#more()) return undefined;
    }
  }

  /** Receives more bytes; false at the end. */
  async #more(): Promise<boolean> {
    const into = new Uint8Array(PIECE_BYTES);
    const receiving = this.#connection.receiveSome(into);
    const count = await within(this.#limits.idleMs, this.#connection, receiving);
    this.#bytes = concat([this.#bytes, into.subarray(0, count)]);
    return count > 0;
  }
}

/** Sends an answer: the last use of the connection. */
export async function sendAnswer(
  connection: UnixConnection,
  { status, body, headers = {} }: HttpAnswer,
  { idleMs, isHead }: { idleMs: number; isHead: boolean },
): Promise<void> {
  const fields = {
    ...typeof body === "string"
      ? {
        "content-type": "application/json",
        "content-length": String(new TextEncoder().encode(body).length),
      }
      : { "content-type": "application/octet-stream" },
    "connection": "close",
    ...headers,
  };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = `HTTP/1.1 ${status} ${REASONS[status] ?? "Unknown"}\r\n${lines.join("")}\r\n`;
  if (typeof body === "string") return await send(connection, isHead ? head : head + body, idleMs);
  try {
    await send(connection, head, idleMs);
    if (!isHead) await sendStream(connection, body);
  } finally {
    await body.cancel();
  }
}

/** Sends bytes until they end or the client is gone, however slowly the client takes them. */
async function sendStream(
  connection: UnixConnection,
  body: ReadableStream<Uint8Array>,
): Promise<void> {
  // A client sends nothing after its request, so a receive that ends means that it is gone.
  const gone = new AbortController();
  connection.receiveSome(new Uint8Array(1)).catch(() => 0).then(() => {
    gone.abort();
    connection.shutdown();
  });
  const sink = new WritableStream<Uint8Array>({ write: (bytes) => connection.send(bytes) });
  await body.pipeTo(sink, { signal: gone.signal });
}

function send(connection: UnixConnection, text: string, idleMs: number): Promise<void> {
  return within(idleMs, connection, connection.send(new TextEncoder().encode(text)));
}

/** Ends the connection if the work takes too long. */
async function within<T>(ms: number, connection: UnixConnection, work: Promise<T>): Promise<T> {
  const timer = setTimeout(() => connection.shutdown(), ms);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
  }
}

function endedEarly(): HttpError {
  return new HttpError(400, "Expected the whole body, got a part");
}

function tooLarge(bytes: number): HttpError {
  return new HttpError(413, `Expected a body of at most ${bytes} bytes`);
}
