/**
 * A file on a web server, of which parts are read.
 *
 * @module
 */

import { plainMessage } from "../../../src/linux/mod.ts";
import { conditionsOf, expectRange, type FileVersion, HttpFault, versionOf } from "./answer.ts";

/** How a server is reached; plain values, which a queue thread gets too. */
export interface ServerAccess {
  /** The URL of the file. */
  readonly url: string;
  /** Certificates to trust beside the usual ones, as PEM. */
  readonly ca?: string;
  /** The field Authorization. */
  readonly authorization?: string;
  /** The most requests at a time. */
  readonly connections: number;
  /** How long an answer may send nothing before it is given up, in milliseconds. */
  readonly timeoutMs: number;
  /** For how long after the last byte failed requests are repeated, in milliseconds. */
  readonly retryMs: number;
  /** How long a part may take in all, however it trickles, in milliseconds. */
  readonly partMs: number;
}

/** {@linkcode ServerAccess.partMs} of disks. */
export const MAX_PART_MS = 300_000;

/** The pause before the first repetition, which doubles with each further one, and the longest. */
const FIRST_PAUSE_MS = 100, LAST_PAUSE_MS = 3000;

/** The most redirects of a request, and the statuses that are some. */
const MAX_REDIRECTS = 10, REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];

/** Requests parts of a file. */
export class RemoteFile implements Disposable {
  readonly #access: ServerAccess;
  readonly #client: Deno.HttpClient;
  readonly #closing = new AbortController();
  /** Where the file is: its URL, or where that redirects to, until a request fails there. */
  #target: string;

  /** Makes no connection yet. */
  constructor(access: ServerAccess) {
    this.#access = access;
    this.#target = access.url;
    this.#client = Deno.createHttpClient({
      ...access.ca !== undefined && { caCerts: [access.ca] },
      poolMaxIdlePerHost: access.connections,
    });
  }

  /** Gives up all requests. */
  [Symbol.dispose](): void {
    this.#closing.abort(new HttpFault("the disk is closed", true));
    this.#client.close();
  }

  /**
   * Asks for the first bytes, and so for the version of the file.
   *
   * @throws {HttpFault} At the first failure.
   */
  async first(bytes: number): Promise<{ version: FileVersion; bytes: Uint8Array<ArrayBuffer> }> {
    const end = performance.now() + this.#access.partMs;
    const range = `bytes=0-${bytes - 1}`;
    return await this.#attempt({ range }, end, async (response, progress) => {
      const version = versionOf(response);
      const first = new Uint8Array(Math.min(bytes, version.bytes));
      expectRange(response, version, 0, first.length);
      await fill(first, 0, response, progress);
      return { version, bytes: first };
    });
  }

  /**
   * Reads a part of a version. Failed requests are repeated from the first byte that is missing.
   *
   * @param received Told how many bytes have come.
   * @param failed Told of a failed request that is repeated.
   * @throws {HttpFault} When the bytes cannot be had.
   */
  async read(
    version: FileVersion,
    offset: number,
    into: Uint8Array,
    received: (bytes: number) => void,
    failed: (fault: HttpFault) => void,
  ): Promise<void> {
    let lastByte = performance.now();
    const partEnd = lastByte + this.#access.partMs;
    let pauseMs = FIRST_PAUSE_MS;
    for (let at = 0; at < into.length;) {
      const from = offset + at, end = offset + into.length;
      const headers = { range: `bytes=${from}-${end - 1}`, ...conditionsOf(version) };
      try {
        await this.#attempt(headers, partEnd, async (response, progress) => {
          expectRange(response, version, from, end);
          await fill(into, at, response, (bytes) => {
            progress();
            at = bytes;
            lastByte = performance.now();
            received(at);
          });
        });
      } catch (error) {
        const fault = error as HttpFault;
        const end = Math.min(lastByte + this.#access.retryMs, partEnd);
        const leftMs = end - performance.now();
        if (fault.isFinal || leftMs < pauseMs) throw fault;
        failed(fault);
        // As long as the server asks for, but for a last attempt
        await this.pause(Math.min(Math.max(pauseMs, fault.retryAfterMs), leftMs));
        pauseMs = Math.min(pauseMs * 2, LAST_PAUSE_MS);
      }
    }
  }

  /** Resolves after a time; rejects when the file is disposed of. */
  async pause(ms: number): Promise<void> {
    const { signal } = this.#closing;
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const abort = () => reject(signal.reason);
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", abort);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }

  /**
   * Makes a request.
   *
   * @param end When it is given up at the latest, by `performance.now()`.
   * @param use Uses the answer; it calls `progress` for each piece of it.
   * @throws {HttpFault} Whatever fails.
   */
  async #attempt<T>(
    fields: Record<string, string>,
    end: number,
    use: (response: Response, progress: () => void) => Promise<T>,
  ): Promise<T> {
    const { url, timeoutMs, partMs } = this.#access;
    const target = this.#target;
    const stuck = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const progress = () => {
      clearTimeout(timer);
      const leftMs = end - performance.now();
      const why = leftMs < timeoutMs
        ? `what was asked for did not come within ${partMs} ms`
        : `nothing came for ${timeoutMs} ms`;
      const giveUp = () => stuck.abort(new HttpFault(why, false));
      timer = setTimeout(giveUp, Math.max(0, Math.min(timeoutMs, leftMs)));
    };
    progress();
    let response: Response | undefined;
    try {
      let at = target;
      for (let redirects = 0;; redirects++) {
        response = await this.#request(at, fields, stuck.signal);
        progress();
        const next = redirectOf(response, at);
        if (next === undefined) break;
        if (redirects === MAX_REDIRECTS) {
          throw new HttpFault(`the server redirects more than ${MAX_REDIRECTS} times`, false);
        }
        expectNoDowngrade(url, next);
        await response.body?.cancel();
        at = next;
      }
      const result = await use(response, progress);
      this.#target = at;
      return result;
    } catch (error) {
      // What it redirected to may have expired
      this.#target = url;
      const fault = faultOf(error);
      throw target === url ? fault : new HttpFault(fault.message, false, fault.retryAfterMs);
    } finally {
      clearTimeout(timer);
      response?.body?.cancel().catch(() => {});
    }
  }

  /** Makes a request, and follows no redirect. */
  async #request(
    at: string,
    fields: Record<string, string>,
    stuck: AbortSignal,
  ): Promise<Response> {
    const { url, authorization } = this.#access;
    const isOwnServer = new URL(at).origin === new URL(url).origin;
    return await fetch(at, {
      client: this.#client,
      redirect: "manual",
      headers: {
        ...fields,
        "accept-encoding": "identity",
        ...authorization !== undefined && isOwnServer && { authorization },
      },
      signal: AbortSignal.any([stuck, this.#closing.signal]),
    });
  }
}

/** Where an answer redirects to, if it does. */
function redirectOf({ status, headers }: Response, from: string): string | undefined {
  const location = headers.get("location");
  if (!REDIRECTS.includes(status) || location === null) return undefined;
  const to = URL.parse(location, from);
  if (to?.protocol === "http:" || to?.protocol === "https:") return to.href;
  throw new HttpFault("the server redirects to what is no URL of a web server", false);
}

/** Puts the body of an answer into `into` from `at` on; `progress` is told how much is filled. */
async function fill(
  into: Uint8Array,
  at: number,
  response: Response,
  progress: (filled: number) => void,
): Promise<void> {
  for await (const piece of response.body ?? []) {
    if (piece.length > into.length - at) {
      throw new HttpFault("the server sent more bytes than it said", false);
    }
    into.set(piece, at);
    at += piece.length;
    progress(at);
  }
  if (at < into.length) {
    throw new HttpFault(`the answer ended ${into.length - at} bytes too early`, false);
  }
}

function expectNoDowngrade(from: string, to: string): void {
  if (!from.startsWith("https:") || to.startsWith("https:")) return;
  throw new HttpFault("the server redirects from https to http", true);
}

/** The fault of whatever failed: an error of `fetch` says the URL, which may have secrets. */
function faultOf(error: unknown): HttpFault {
  if (error instanceof HttpFault) return error;
  const { cause } = error as Error;
  const why = plainMessage(cause instanceof Error ? cause : error)
    .replace(/^error sending request[^]*?: client error \(\w+\): /, "")
    .replace(/^error sending request.*: /, "")
    .replace(/^(tcp connect|dns) error: /, "")
    .replace(/^invalid peer certificate: .*/, "its certificate is not trusted ($&)");
  return new HttpFault(why, false);
}
