/** The other end of a stream port: frames behind their lengths, as QEMU's `-netdev stream` has them. */
import { readFully, writeAll } from "./process.ts";

/** A connection of any transport. */
type Connection = Deno.TcpConn | Deno.UnixConn;

/** A frame behind its length. */
export function record(frame: Uint8Array, length = frame.length): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4 + frame.length);
  new DataView(bytes.buffer).setUint32(0, length);
  bytes.set(frame, 4);
  return bytes;
}

/** A peer of a stream port. */
export class StreamPeer implements Disposable {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Sends bytes. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await writeAll(this.#connection, bytes);
  }

  /** Sends a frame. */
  async send(frame: Uint8Array): Promise<void> {
    await this.write(record(frame));
  }

  /** Receives a frame; undefined at the end of the stream. */
  async receive(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const length = await this.#read(4);
    if (length === undefined) return undefined;
    return await this.#read(new DataView(length.buffer).getUint32(0));
  }

  async #read(bytes: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const into = new Uint8Array(bytes);
    const read = (to: Uint8Array) => this.#connection.read(to).catch(() => null);
    const count = await readFully({ read }, into);
    if (count === bytes) return into;
    if (count > 0) throw new Error("The stream ended within a frame");
  }

  /** Closes the connection, unless it is closed. */
  [Symbol.dispose](): void {
    try {
      this.#connection.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
  }
}
