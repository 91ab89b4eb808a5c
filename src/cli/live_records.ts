/**
 * The records of several running devices, which may come and go.
 *
 * @module
 */

import type { RecordJson } from "../runtime/record.ts";
import { controlSocketsIn } from "../web/device_hub.ts";
import { openRecordSource } from "./record_file.ts";
import { say } from "./failure.ts";
import { UsageError } from "./usage_error.ts";

/** The most control sockets that are read. */
const MAX_SOCKETS = 256;

/** What the sockets answered. */
export interface LiveRead {
  /** The records, each with the path of its socket. */
  readonly records: readonly { readonly socket: string; readonly record: RecordJson }[];
  /** The sockets that did not answer. */
  readonly silent: readonly string[];
}

/** Reads the records of control sockets, and of those in directories whose names end in .ctl. */
export class LiveRecords {
  readonly #paths: readonly string[];
  #hasTold = false;
  #reading: Promise<LiveRead> | undefined;

  /**
   * Checks that there is something at each path.
   *
   * @throws {UsageError} When there is not.
   */
  static async open(paths: readonly string[]): Promise<LiveRecords> {
    for (const path of paths) {
      const info = await Deno.stat(path).catch(() => undefined);
      if (info?.isSocket || info?.isDirectory) continue;
      const found = info === undefined ? "nothing" : "something else";
      throw new UsageError(
        `Expected a control socket (--control-path) or a directory of them at ${path}, found ${found}`,
      );
    }
    return new LiveRecords(paths);
  }

  private constructor(paths: readonly string[]) {
    this.#paths = paths;
  }

  /** Reads all records at the same time; callers share a read that is under way. */
  read(): Promise<LiveRead> {
    return this.#reading ??= this.#read().finally(() => this.#reading = undefined);
  }

  /** Says once that there are more sockets than are read. */
  #tellLeftOut(sockets: readonly string[]): void {
    if (sockets.length === 0 || this.#hasTold) return;
    this.#hasTold = true;
    say(
      `Reads up to ${MAX_SOCKETS} control sockets; leaves out ${sockets.length}, such as ` +
        `${sockets[0]}. Give fewer paths, or start another vhostd for them`,
    );
  }

  async #read(): Promise<LiveRead> {
    const sockets = (await Promise.all(this.#paths.map(async (path) => {
      const isDirectory = (await Deno.stat(path).catch(() => undefined))?.isDirectory;
      if (!isDirectory) return [path];
      return (await controlSocketsIn(path)).map((name) => `${path}/${name}`);
    }))).flat();
    this.#tellLeftOut(sockets.slice(MAX_SOCKETS));
    const silent: string[] = [];
    const records = await Promise.all(
      [...new Set(sockets.slice(0, MAX_SOCKETS))].map(async (socket) => {
        try {
          const source = await openRecordSource(socket);
          return (await source.read()).records.map((record) => ({ socket, record }));
        } catch {
          silent.push(socket);
          return [];
        }
      }),
    );
    return { records: records.flat(), silent };
  }
}
