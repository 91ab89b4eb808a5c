/**
 * What an answer of a web server must be to be used: a part of the one version of a file that is
 * served.
 *
 * Source: RFC 9110, 8.8 Validator Fields, 13.1 Preconditions, 14 Range Requests.
 *
 * @module
 */

/** The largest disk, in bytes: what is kept per chunk must be bounded. */
export const MAX_DISK_BYTES = 2 ** 43;

/** One version of a file. */
export interface FileVersion {
  /** Its size, in bytes. */
  readonly bytes: number;
  /** Its strong ETag; without one, `lastModified` stands for the version. */
  readonly etag?: string;
  /** When it changed last, as the server says it. */
  readonly lastModified?: string;
}

/** An answer that cannot be used, or none. */
export class HttpFault extends Error {
  /** `HttpFault`. */
  override name = "HttpFault";
  /** Whether another attempt would get the same. */
  readonly isFinal: boolean;
  /** How long the server asks to wait, in milliseconds. */
  readonly retryAfterMs: number;

  /** @param message What was expected and what came. */
  constructor(message: string, isFinal: boolean, retryAfterMs = 0) {
    super(message);
    this.isFinal = isFinal;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The most characters of a field that are shown. */
const MAX_SHOWN = 100;

function shown(field: string): string {
  return JSON.stringify(field.slice(0, MAX_SHOWN));
}

/** The range and the size of the whole file that a Content-Range tells. */
function contentRange({ headers }: Response): { from: number; to: number; total: number } {
  const text = headers.get("content-range") ?? "";
  const [, from, to, total] =
    /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/i.exec(text)?.map(Number) ??
      [];
  if (total === undefined) {
    throw new HttpFault(
      `Expected a Content-Range such as bytes 0-4095/1048576, got ${shown(text)}`,
      true,
    );
  }
  return { from, to, total };
}

/** Expects the bytes of the file as they are. */
function expectPlain({ headers }: Response): void {
  const encoding = headers.get("content-encoding") ?? "identity";
  if (encoding.toLowerCase() === "identity") return;
  throw new HttpFault(`Expected no Content-Encoding, got ${shown(encoding)}`, true);
}

/** Statuses that pass: timeout, too early, too many requests, and faults of the server. */
function isPassing(status: number): boolean {
  return [408, 425, 429].includes(status) || status >= 500;
}

/** How long an answer asks to wait, in milliseconds: RFC 9110, 10.2.3 Retry-After. */
function retryAfterMs({ headers }: Response): number {
  const text = headers.get("retry-after") ?? "";
  const ms = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return ms > 0 ? ms : 0;
}

/** The version of a file, from the answer to the first request, for its beginning. */
export function versionOf(response: Response): FileVersion {
  const { status, headers } = response;
  if (status === 200) {
    throw new HttpFault(
      "the server ignores Range: it cannot send parts of the file (206); download the file, or " +
        "serve it by one that can, such as nginx",
      true,
    );
  }
  if (status === 416) throw new HttpFault("the file is empty", true);
  expectPart(response);
  const { from, total: bytes } = contentRange(response);
  if (bytes === 0) throw new HttpFault("the file is empty", true);
  if (from !== 0) throw new HttpFault(`Expected the first bytes, got those from ${from} on`, true);
  if (bytes > MAX_DISK_BYTES) {
    throw new HttpFault(`Expected at most ${MAX_DISK_BYTES} bytes, got ${bytes}`, true);
  }
  const etag = headers.get("etag") ?? undefined;
  if (etag !== undefined && /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag)) return { bytes, etag };
  const lastModified = headers.get("last-modified") ?? undefined;
  if (lastModified !== undefined) return { bytes, lastModified };
  throw new HttpFault(
    "the server sends neither a strong ETag nor Last-Modified, without which parts of different " +
      "versions could be mixed; have it send one, or download the file",
    true,
  );
}

/** Expects an answer to be a part of the file (206), not encoded. */
function expectPart(response: Response): void {
  const { status, statusText } = response;
  if (status !== 206) {
    const what = `Expected 206, got ${status} ${statusText}`.trimEnd();
    throw new HttpFault(what, !isPassing(status), retryAfterMs(response));
  }
  expectPlain(response);
}

/** The fields of a request for a part of a version. */
export function conditionsOf({ etag, lastModified }: FileVersion): Record<string, string> {
  return etag !== undefined ? { "if-match": etag } : { "if-unmodified-since": lastModified! };
}

/**
 * Expects an answer to be the bytes from `from` to before `end` of a version.
 *
 * @throws {HttpFault} When it is anything else: final when it is of another version.
 */
export function expectRange(
  response: Response,
  version: FileVersion,
  from: number,
  end: number,
): void {
  const changed = (what: string, before: unknown, now: unknown): never => {
    throw new HttpFault(
      `the file has changed on the server: ${what} was ${before}, now it is ${now}`,
      true,
    );
  };
  const { status, headers } = response;
  if (status === 412) changed("the status", 206, status);
  if (status === 200) changed("the answer", "a part (206)", "the whole file (200)");
  expectPart(response);
  const range = contentRange(response);
  if (range.total !== version.bytes) changed("its size", version.bytes, range.total);
  for (const [field, before] of [["etag", version.etag], ["last-modified", version.lastModified]]) {
    const now = headers.get(field!);
    if (before !== undefined && now !== before) {
      changed(field!, before.slice(0, MAX_SHOWN), now && now.slice(0, MAX_SHOWN));
    }
  }
  if (range.from !== from || range.to !== end - 1) {
    throw new HttpFault(
      `Expected bytes ${from}-${end - 1}, got ${range.from}-${range.to}`,
      true,
    );
  }
}
