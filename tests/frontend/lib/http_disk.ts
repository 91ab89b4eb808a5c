/**
 * A disk of a web server, served in the test's process, with a driver for it.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { equals } from "@std/bytes";
import blk from "../../../backends/blk/mod.ts";
import { serve } from "../../../mod.ts";
import { BlkDriver, blkStatus, VirtioDriver } from "../../../src/frontend/mod.ts";
import { watchesEnded } from "../../../src/linux/mod.ts";

export const MIB = 2 ** 20;

/** Longer than a busy machine takes for anything. */
export const PATIENT = "timeout=60,retry=60";

let openDisks = 0;

/** How to serve it. */
export interface HttpDiskOptions {
  /** The directory of the cache. @default {one that ends with the disk} */
  cache?: string;
  /** Further options of the store. @default {PATIENT} */
  storeOptions?: string;
  /** See `DeviceHostOptions`. */
  stopLimitMs?: number;
}

/** Where the disk is. */
export interface DiskSource {
  readonly url: string;
  readonly content: Uint8Array;
  /** The ranges that were asked for. */
  readonly ranges?: unknown[];
}

/** A disk that is served until it is disposed of. */
export class HttpDisk implements AsyncDisposable {
  readonly disk: BlkDriver;
  #lineCame = Promise.withResolvers<void>();

  private constructor(
    private readonly content: Uint8Array,
    readonly driver: VirtioDriver,
    /** What was logged. */
    readonly lines: string[],
    readonly report: () => Record<string, unknown>,
    private readonly ended: AsyncDisposableStack,
  ) {
    this.disk = new BlkDriver(driver);
  }

  /** Opens the disk of a server, forgets which ranges that took, and starts a driver. */
  static async start(server: DiskSource, options: HttpDiskOptions = {}): Promise<HttpDisk> {
    await using stack = new AsyncDisposableStack();
    openDisks++;
    stack.defer(async () => {
      // The last one waits for what Deno's test runner would report
      if (--openDisks === 0) await watchesEnded();
    });
    const directory = Deno.makeTempDirSync();
    stack.defer(() => Deno.removeSync(directory, { recursive: true }));
    const { cache = `${directory}/cache`, storeOptions = PATIENT, stopLimitMs } = options;
    const lines: string[] = [];
    let made: HttpDisk | undefined;
    const socketPath = `${directory}/blk.sock`;
    const served = stack.use(
      await serve(blk, {
        ...{ socketPath, stopLimitMs },
        options: {
          blkFile: server.url,
          numQueues: 1,
          storeOptions: [`cache=${cache}`, storeOptions].join(),
        },
        log(line) {
          lines.push(line);
          if (made !== undefined) made.#lineCame.resolve();
        },
      }),
    );
    server.ranges?.splice(0);
    const driver = stack.use(await VirtioDriver.start(socketPath, { queues: [64] }));
    const report = () => (served.record().report as { store: Record<string, unknown> }).store;
    return made = new HttpDisk(server.content, driver, lines, report, stack.move());
  }

  /** Resolves when a line with this text was logged. */
  async line(text: string): Promise<void> {
    while (!this.lines.some((line) => line.includes(text))) {
      await this.#lineCame.promise;
      this.#lineCame = Promise.withResolvers();
    }
  }

  /** Expects a read to return what the server has, and zeroes behind its end. */
  async expectRead(offset: number, bytes: number): Promise<void> {
    const { status, data } = await this.disk.read(offset / 512, bytes);
    const what = `read of ${bytes} at ${offset}`;
    assertEquals(status, blkStatus.OK, what);
    const expected = new Uint8Array(bytes);
    expected.set(this.content.subarray(offset, offset + bytes));
    // Comparing views of bytes by assertEquals takes long
    if (!equals(data, expected)) assertEquals(data, expected, what);
  }

  /** Expects the whole disk to be what the server has. */
  async expectAll(): Promise<void> {
    const { length } = this.content;
    for (let at = 0; at < length; at += MIB) {
      await this.expectRead(at, Math.min(MIB, Math.ceil((length - at) / 512) * 512));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ended.disposeAsync();
  }
}
