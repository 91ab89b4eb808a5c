/** A device's back-end, in one process after the other. */
import { Backend, vhostdCommand } from "../lib/backend.ts";
import { ToolError } from "../lib/tool_error.ts";
import type { World } from "./actor.ts";
import type { Process } from "./processes.ts";

/** A back-end that is killed and started again, always on the same socket. */
export class LastingBackend implements AsyncDisposable {
  readonly socketPath: string;
  /** Rejects when a process ends that was not told to. Never resolves. */
  readonly failed: Promise<never>;
  readonly #fail: (error: Error) => void;
  readonly #command: [string, ...string[]];
  readonly #controlPath: string;
  #process: { backend: Backend; seen: Process } | undefined;

  constructor(
    readonly world: World,
    readonly name: string,
    device: string,
    flags: readonly string[],
  ) {
    this.socketPath = `${world.directory}/${name}.sock`;
    this.#controlPath = `${world.directory}/${name}.control`;
    const places = [`--socket-path=${this.socketPath}`, `--control-path=${this.#controlPath}`];
    this.#command = vhostdCommand([device, ...places, ...flags]);
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {});
    [this.failed, this.#fail] = [promise, reject];
  }

  get now(): Backend {
    return this.#process!.backend;
  }

  /** Starts a process, and waits until it listens. */
  async start(): Promise<void> {
    const { name, socketPath } = this;
    const options = { name, socketPath, controlPath: this.#controlPath, isDetached: true };
    const backend = new Backend(this.#command, options);
    this.#process = { backend, seen: this.world.processes.add(name, backend.pid) };
    backend.failed.catch(this.#fail);
    await backend.listening();
  }

  /** Ends the process, and waits until it is gone. */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    if (this.#process === undefined) return;
    const { backend, seen } = this.#process;
    seen.hasEnded = true;
    const status = await backend.end(signal);
    this.#process = undefined;
    if (signal === "SIGKILL" || status.success) return;
    throw new ToolError(
      `${this.name} ended with ${status.signal ?? `status ${status.code}`} on ${signal}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
  }
}
