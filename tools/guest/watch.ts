/** A watch over a guest that is started with it: its QEMU traces from the first access on. */
import { directoriesOf, findServed } from "../../src/cli/watch/control_client.ts";
import { Qmp } from "../../src/cli/watch/qmp.ts";
import { TRACE_EVENTS, TraceLog } from "../../src/cli/watch/trace_log.ts";
import { Watch } from "../../src/cli/watch/watch.ts";

/** How a {@linkcode GuestWatch} is made. */
export interface GuestWatchOptions {
  /** A directory for its sockets. */
  directory: string;
  /** The control sockets of the devices. */
  controlPaths: readonly string[];
  /** Takes messages for a person. */
  tell: (line: string) => void;
  /** Where QEMU's log goes. @default {the watch's own FIFO} */
  logPath?: string;
}

/** Watches one QEMU from its start. */
export class GuestWatch implements AsyncDisposable {
  /** Where QEMU's trace goes. */
  readonly log: TraceLog = new TraceLog();
  /** Resolves when it is attached, or cannot be, which was told then. */
  readonly attached: Promise<void>;
  readonly #options: GuestWatchOptions;
  readonly #listener: Deno.Listener;
  readonly #qmpPath: string;
  #qmp: Qmp | undefined;
  #watch: Watch | undefined;
  #hasEnded = false;

  constructor(options: GuestWatchOptions) {
    this.#options = options;
    this.#qmpPath = `${options.directory}/watch.qmp`;
    this.#listener = Deno.listen({ transport: "unix", path: this.#qmpPath });
    this.attached = this.#attach();
  }

  /** The arguments for QEMU. Its log has times, which QEMU's messages have then too. */
  get arguments(): string[] {
    return [
      ...["-qmp", `unix:${this.#qmpPath}`, "-msg", "timestamp=on"],
      ...["-D", this.#options.logPath ?? this.log.path],
      ...TRACE_EVENTS.flatMap((name) => ["-trace", name]),
    ];
  }

  async #attach(): Promise<void> {
    const { controlPaths, tell } = this.#options;
    let connection: Deno.Conn;
    try {
      connection = await this.#listener.accept();
    } catch {
      return; // QEMU has not started
    }
    try {
      const qmp = this.#qmp = await Qmp.begin(connection);
      const find = (paths: readonly string[]) => findServed(controlPaths, directoriesOf(paths));
      this.#watch = await Watch.start({ qmp, log: this.log, find, isWhole: true, tell });
      const { pid } = this.#watch;
      if (pid !== undefined && this.#options.logPath === undefined) this.log.protect(pid);
    } catch (error) {
      tell(`the drivers are not watched: ${(error as Error).message}`);
    }
  }

  /** Posts what is left. Call it when QEMU has ended, and before the devices do. */
  async end(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#listener.close();
    await this.attached;
    await this.log.stop();
    await this.#watch?.end("with front-end");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    await this.#qmp?.[Symbol.asyncDispose]();
    await this.log[Symbol.asyncDispose]();
  }
}
