/**
 * A directory in which an NBD server and vhostd have their sockets.
 *
 * @module
 */

import { VirtioDriver } from "../../../src/frontend/mod.ts";
import { watchesEnded } from "../../../src/linux/mod.ts";
import { libraryEnvironment } from "../../../tools/guest/programs.ts";
import { CliProcess } from "./cli_process.ts";

/** Where a server and vhostd meet. */
export class NbdPlace implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync();
  /** The server's socket. */
  readonly nbd = `${this.directory}/nbd.sock`;
  readonly uri = `nbd+unix:///?socket=${this.nbd}`;
  /** The socket of vhostd. */
  readonly blk = `${this.directory}/blk.sock`;

  private constructor(
    /** In it, vhostd finds libnbd. */
    readonly env: Record<string, string>,
  ) {}

  static async make(): Promise<NbdPlace> {
    return new NbdPlace(await libraryEnvironment("libnbd0"));
  }

  /** Serves the disk that a URI names. */
  async serve(options: readonly string[] = [], uri: string = this.uri): Promise<CliProcess> {
    const args = ["blk", uri, `--socket-path=${this.blk}`, "--num-queues=2", ...options];
    const vhostd = new CliProcess(args, { env: this.env });
    await vhostd.until(this.blk);
    return vhostd;
  }

  /** Starts a driver for it. */
  driver(inflight = false): Promise<VirtioDriver> {
    return VirtioDriver.start(this.blk, { queues: [64, 64], inflight, timeoutMs: 60_000 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await watchesEnded();
    await Deno.remove(this.directory, { recursive: true });
  }
}
