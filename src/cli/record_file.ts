/**
 * Reads records from a control socket, or from a file that `--record` wrote.
 *
 * @module
 */

import { requestControl } from "../runtime/control_request.ts";
import type { RecordJson } from "../runtime/record.ts";
import { checkRecord } from "../runtime/record_shape.ts";
import { textOf } from "../web/lines.ts";
import type { GroupRecordJson } from "../runtime/server_group.ts";

/** The version of the record that this program shows. */
const KNOWN_VERSION: RecordJson["version"] = 1;

/** The longest record to read, in bytes: many times that of any device. */
const MAX_RECORD_BYTES = 2 ** 26;

/** Time that a control socket may take to answer. */
const ANSWER_TIMEOUT_MS = 5000;

/** What a source has: the records of a device, or of its instances. */
export interface RecordsRead {
  readonly json: RecordJson | GroupRecordJson;
  /** One, or one for each instance. */
  readonly records: readonly RecordJson[];
}

/** A source of records. */
export interface RecordSource {
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
function recordText(stream: ReadableStream<Uint8Array> | null, path: string): Promise<string> {
  return textOf(stream, MAX_RECORD_BYTES, { what: "a record", path });
}

function fromFile(path: string): RecordSource {
  return {
    isLive: false,
    read: async () => asRecords(await recordText((await Deno.open(path)).readable, path), path),
  };
}

function fromSocket(path: string): RecordSource {
  return {
    isLive: true,
    async read() {
      let text: string;
      try {
        const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
        const { body } = await requestControl(path, "/record", { signal });
        text = await recordText(body, path);
      } catch (cause) {
        if (cause instanceof Deno.errors.NotCapable || cause instanceof RangeError) throw cause;
        throw new Error(
          `Expected a control socket that answers at ${path}; it may be the vhost-user socket, ` +
            "or its server is gone",
          { cause },
        );
      }
      return asRecords(text, path);
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
  const { instances = [json] } = Object(json) as Partial<GroupRecordJson>;
  const records = Object.values(Object(instances));
  if (records.length === 0) throw new Error(`Expected a record in ${path}, got none`);
  return { json, records: records.map((record) => asRecord(record, path)) };
}

function asRecord(value: unknown, path: string): RecordJson {
  const record = Object(value) as RecordJson;
  if (typeof record.version !== "number" || !Array.isArray(record.queues)) {
    throw new Error(`Expected the JSON of a record in ${path}, got other JSON`);
  }
  if (record.version !== KNOWN_VERSION) {
    throw new Error(
      `Expected a record of version ${KNOWN_VERSION} in ${path}, got version ${record.version}`,
    );
  }
  try {
    checkRecord(record, "");
  } catch (cause) {
    throw new Error(`Expected a whole record in ${path}: ${(cause as Error).message}`, { cause });
  }
  return record;
}
