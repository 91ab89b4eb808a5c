/**
 * Reading records: from a control socket, or from a file that `--record` wrote.
 *
 * @module
 */

import type { RecordJson } from "../runtime/record.ts";

/** The version of the record that this program shows. */
const KNOWN_VERSION: RecordJson["version"] = 1;

/** How long a control socket may take to answer. */
const ANSWER_TIMEOUT_MS = 5000;

/** Where records come from, as often as they are asked for. */
export interface RecordSource extends Disposable {
  /** Whether there is a living server behind it. */
  readonly isLive: boolean;
  /**
   * The record as it is now.
   *
   * @throws {Error} When there is none to be had.
   */
  read(): Promise<RecordJson>;
}

/**
 * Opens a control socket or a record file.
 *
 * @throws {Error} When there is neither at the path.
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
  return info.isSocket ? fromSocket(path) : fromFile(path);
}

function fromFile(path: string): RecordSource {
  return {
    isLive: false,
    read: async () => asRecord(await Deno.readTextFile(path), path),
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
        response = await fetch("http://vhostd/record", { client, signal });
      } catch (cause) {
        if (cause instanceof Deno.errors.NotCapable) throw cause;
        throw new Error(
          `Expected a control socket that answers at ${path}; it may be the vhost-user socket, ` +
            "or its server is gone",
          { cause },
        );
      }
      return asRecord(await response.text(), path);
    },
    [Symbol.dispose]() {
      client.close();
    },
  };
}

function asRecord(text: string, path: string): RecordJson {
  let record: Partial<RecordJson> | null;
  try {
    record = JSON.parse(text);
  } catch (cause) {
    throw new Error(`Expected the JSON of a record in ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
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
