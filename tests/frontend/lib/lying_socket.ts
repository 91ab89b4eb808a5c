/**
 * A control socket that answers as it is told, for tests of what asks it.
 *
 * @module
 */

/** The pieces of answers' bodies, by the paths of requests. */
export type Answers = Record<string, () => Iterable<string>>;

/** Answers requests by their paths with texts or streams, whatever they are. */
export class LyingSocket implements AsyncDisposable {
  readonly #listener: Deno.UnixListener;
  readonly #connections = new Set<Deno.UnixConn>();
  readonly #serving: Promise<void>;

  /**
   * @param answers Gives the pieces of an answer's body. After "…" it waits until the client is gone.
   * @param type The content-type of all answers.
   */
  constructor(path: string, answers: Answers, type = "application/json") {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#serving = this.#serve(answers, type);
  }

  /** Number of connections that are open. */
  get open(): number {
    return this.#connections.size;
  }

  async #serve(answers: Answers, type: string): Promise<void> {
    const answering: Promise<void>[] = [];
    try {
      for await (const connection of this.#listener) {
        this.#connections.add(connection);
        answering.push(
          this.#answer(connection, answers, type).catch(() => {}).finally(() => {
            this.#connections.delete(connection);
            connection[Symbol.dispose]();
          }),
        );
      }
    } catch {
      // It is closed
    }
    await Promise.all(answering);
  }

  async #answer(
    connection: Deno.UnixConn,
    answers: Answers,
    type: string,
  ): Promise<void> {
    const request = new Uint8Array(4096);
    const count = await connection.read(request) ?? 0;
    const [, target] = new TextDecoder().decode(request.subarray(0, count)).split(" ");
    const { pathname } = new URL(target, "http://vhostd"); // Clients of a proxy send a whole URL
    const send = async (text: string) => {
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
    };
    await send(
      `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\nconnection: close\r\n\r\n`,
    );
    for (const text of answers[pathname]?.() ?? []) {
      if (text === "…") await connection.read(request); // Until the client is gone
      else await send(text);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#connections) connection[Symbol.dispose]();
    await this.#serving;
  }
}
