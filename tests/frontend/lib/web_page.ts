/**
 * A `vhostd web` in this process, and requests to it.
 *
 * @module
 */
import { WebServer, type WebServerOptions } from "../../../src/web/web_server.ts";

/** A running server with a client. */
export class WebPage implements AsyncDisposable {
  readonly server: WebServer;
  readonly #client = Deno.createHttpClient({});

  private constructor(server: WebServer) {
    this.server = server;
  }

  static async start(options: Partial<WebServerOptions> = {}): Promise<WebPage> {
    return new WebPage(
      await WebServer.start({
        ...{ hostname: "127.0.0.1", port: 0, control: false, paths: [] },
        ...options,
      }),
    );
  }

  get url(): URL {
    return new URL(this.server.url);
  }

  /** Sends a request whose path is relative to the page's. */
  async request(path: string, init: RequestInit = {}): Promise<[status: number, text: string]> {
    const url = new URL(path, this.server.url);
    const response = await fetch(url, { ...init, client: this.#client, redirect: "manual" });
    return [response.status, await response.text()];
  }

  /** Sends bytes as they are, and returns the status of the answer; 0 if there is none. */
  async raw(text: string): Promise<number> {
    const { hostname, port } = this.url;
    using connection = await Deno.connect({ hostname, port: Number(port) });
    await connection.write(new TextEncoder().encode(text));
    const answer = new Uint8Array(64);
    const count = await connection.read(answer).catch(() => null) ?? 0;
    const [, status = "0"] =
      /^HTTP\/1\.1 (\d+)/.exec(new TextDecoder().decode(answer.subarray(0, count))) ?? [];
    return Number(status);
  }

  /** Sends a command as the page does. */
  async command(path: string, body: unknown): Promise<[status: number, text: string]> {
    return await this.request(path, {
      method: "POST",
      headers: { "content-type": "application/json", "origin": this.url.origin },
      body: JSON.stringify(body),
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    await this.server[Symbol.asyncDispose]();
  }
}
