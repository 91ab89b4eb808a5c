/**
 * Reads records from a control socket, or from a file that `--record` wrote.
 *
 * @module
 */

import type { RecordJson } from "../runtime/record.ts";
import type { GroupRecordJson } from "../runtime/server_group.ts";

/** The version of the record that this program shows. */
const KNOWN_VERSION: RecordJson["version"] = 1;

/** The longest record to read, in bytes: many times that of any device. */
const MAX_RECORD_BYTES = 64 * 2 ** 20;

/** Time that a control socket may take to answer. */
const ANSWER_TIMEOUT_MS = 5000;

/** What a source has: the records of a device, or of its instances. */
export interface RecordsRead {
  readonly json: RecordJson | GroupRecordJson;
  /** One, or one for each instance. */
  readonly records: readonly RecordJson[];
}

/** A source of records. */
export interface RecordSource extends Disposable {
  /** Whether it is a running server. */
  readonly isLive: boolean;
  /**
   * Reads the current records.
   *
   * @throws {Error} When they cannot be read.
   */
  read(): Promise<RecordsRead>;
}

/**
 * Opens a control socket or a record file.
 *
 * @throws {Error} When the path is neither.
 */
export async function openRecordSource(path: string): Promise<RecordSource> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(
      `Expected a control socket or a record file, found nothing at ${path}; ` +
        "serve the device with --control-path or --record",
      { cause },
    );
  }
  if (!info.isSocket && !info.isFile) {
    const what = info.isDirectory ? "a directory" : "a device or a pipe";
    throw new Error(`Expected a control socket or a record file at ${path}, got ${what}`);
  }
  return info.isSocket ? fromSocket(path) : fromFile(path);
}

/** Reads the text of a record, which may be endless. */
async function textOf(stream: ReadableStream<Uint8Array>, path: string): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const piece of stream) {
    bytes += piece.length;
    if (bytes > MAX_RECORD_BYTES) {
      throw new Error(
        `Expected a record of at most ${MAX_RECORD_BYTES} bytes in ${path}, got more`,
      );
    }
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}

function fromFile(path: string): RecordSource {
  return {
    isLive: false,
    read: async () => asRecords(await textOf((await Deno.open(path)).readable, path), path),
    [Symbol.dispose]() {},
  };
}

function fromSocket(path: string): RecordSource {
  const client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
  return {
    isLive: true,
    async read() {
      let response: Response;
      try {
        const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
        response = await fetch("http://localhost/record", { client, signal });
      } catch (cause) {
        if (cause instanceof Deno.errors.NotCapable) throw cause;
        throw new Error(
          `Expected a control socket that answers at ${path}; it may be the vhost-user socket, ` +
            "or its server is gone",
          { cause },
        );
      }
      return asRecords(await textOf(response.body ?? new Blob().stream(), path), path);
    },
    [Symbol.dispose]() {
      client.close();
    },
  };
}

function asRecords(text: string, path: string): RecordsRead {
  let json: RecordJson | GroupRecordJson;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new Error(`Expected the JSON of a record in ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
  const instances = json !== null && typeof json === "object" && "instances" in json
    ? Object.values(json.instances)
    : [json];
  return { json, records: instances.map((record) => asRecord(record, path)) };
}

function asRecord(record: Partial<RecordJson> | null, path: string): RecordJson {
  if (typeof record?.version !== "number" || !Array.isArray(record.queues)) {
    throw new Error(`Expected the JSON of a record in ${path}, got other JSON`);
  }
  if (record.version !== KNOWN_VERSION) {
    throw new Error(
      `Expected a record of version ${KNOWN_VERSION} in ${path}, got version ${record.version}`,
    );
  }
  return record as RecordJson;
}
