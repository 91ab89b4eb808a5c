/**
 * An NBD server that does as a test says: fixed newstyle negotiation, simple replies.
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
 *
 * @module
 */

import { readFully, writeAll } from "../../../tools/lib/process.ts";

const OPT_ABORT = 2, OPT_GO = 7;
const REP_ACK = 1, REP_INFO = 3, REP_ERR_UNSUP = 2 ** 31 + 1;
const HAS_FLAGS = 1, SEND_FLUSH = 4, MULTI_CONN = 256;

/** Types of requests. */
export const NBD_READ = 0, NBD_WRITE = 1, NBD_DISC = 2, NBD_FLUSH = 3;

/** A request. */
export interface NbdRequest {
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: number;
  readonly bytes: number;
  /** The number of its connection, from 1 on. */
  readonly connection: number;
}

/** What a server sends for a request: bytes, nothing, or the end of the connection. */
export type NbdAnswer = Uint8Array<ArrayBuffer> | "nothing" | "end";

/** A disk that keeps no data. */
export class ScriptedNbdServer implements AsyncDisposable {
  /** The size that it tells new connections. */
  bytes = 2 ** 20;
  multiConn = false;
  /** What it sends first in place of the negotiation. */
  greeting: Uint8Array<ArrayBuffer> | undefined;
  answer: (request: NbdRequest) => NbdAnswer = ({ cookie, type, bytes }) =>
    reply(cookie, 0, type === NBD_READ ? bytes : 0);
  /** Connections so far. */
  count = 0;
  readonly #listener: Deno.UnixListener;
  readonly #connections = new Set<Deno.UnixConn>();
  readonly #serving: Promise<void>;

  constructor(path: string) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#serving = this.#serve();
  }

  async #serve(): Promise<void> {
    const all: Promise<void>[] = [];
    for await (const connection of this.#listener) {
      this.count++;
      this.#connections.add(connection);
      all.push(
        this.#talk(connection, this.count).catch(() => {}).finally(() => {
          this.#connections.delete(connection);
          close(connection);
        }),
      );
    }
    await Promise.all(all);
  }

  async #talk(connection: Deno.UnixConn, number: number): Promise<void> {
    const read = async (bytes: number) => {
      const into = new Uint8Array(bytes);
      if (await readFully(connection, into) < bytes) throw new Error("It has ended");
      return new DataView(into.buffer);
    };
    const write = (...words: [bytes: number, value: number | bigint][]) =>
      writeAll(connection, bigEndian(words));
    if (this.greeting !== undefined) {
      await writeAll(connection, this.greeting);
      await read(1 << 20);
    }
    await write([8, 0x4e42444d41474943n], [8, 0x49484156454f5054n], [2, 1]); // fixed newstyle
    await read(4);
    for (let isAgreed = false; !isAgreed;) {
      const header = await read(16);
      const option = header.getUint32(8);
      await read(header.getUint32(12));
      const answer = (type: number, bytes: number) =>
        write([8, 0x3e889045565a9n], [4, option], [4, type], [4, bytes]);
      if (option === OPT_ABORT) return await answer(REP_ACK, 0);
      if (option !== OPT_GO) {
        await answer(REP_ERR_UNSUP, 0);
        continue;
      }
      await answer(REP_INFO, 12);
      const flags = HAS_FLAGS | SEND_FLUSH | (this.multiConn ? MULTI_CONN : 0);
      await write([2, 0], [8, BigInt(this.bytes)], [2, flags]);
      await answer(REP_ACK, 0);
      isAgreed = true;
    }
    for (;;) {
      const header = await read(28);
      const request = {
        type: header.getUint16(6),
        cookie: header.getBigUint64(8),
        offset: Number(header.getBigUint64(16)),
        bytes: header.getUint32(24),
        connection: number,
      };
      if (request.type === NBD_WRITE) await read(request.bytes);
      if (request.type === NBD_DISC) return;
      const answer = this.answer(request);
      if (answer === "end") return;
      if (answer !== "nothing") await writeAll(connection, answer);
    }
  }

  /** Ends all connections. */
  drop(): void {
    for (const connection of this.#connections) close(connection);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.drop();
    await this.#serving;
  }
}

function close(connection: Deno.UnixConn): void {
  try {
    connection.close();
  } catch {
    // It is closed.
  }
}

/** A simple reply with data. */
export function reply(cookie: bigint, error = 0, bytes = 0, magic = 0x67446698) {
  const header = bigEndian([[4, magic], [4, error], [8, cookie]]);
  const whole = new Uint8Array(16 + bytes).fill(7);
  whole.set(header);
  return whole;
}

function bigEndian(words: readonly [bytes: number, value: number | bigint][]) {
  const length = words.reduce((sum, [bytes]) => sum + bytes, 0);
  const view = new DataView(new ArrayBuffer(length));
  let at = 0;
  for (const [bytes, value] of words) {
    if (bytes === 8) view.setBigUint64(at, BigInt(value));
    else if (bytes === 4) view.setUint32(at, Number(value));
    else view.setUint16(at, Number(value));
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}
