/**
 * Guests and back-ends for tests. The end of a block ends and removes everything; every wait has a
 * time limit.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import type { RecordJson } from "../../../src/runtime/record.ts";
import type { Guest } from "../../../tools/guest/guest.ts";
import { findProgram, run, withTimeout } from "../../../tools/lib/process.ts";
import type { GuestDevice } from "../../../tools/guest/qemu.ts";
import { CliProcess } from "../../frontend/lib/cli_process.ts";

/** Time limit for a process, an answer or a change in the guest. */
const TIMEOUT_MS = 60_000;

/** The log line of a back-end that waits for QEMU. */
const CONNECTS = /^vhostd: \w+: (Waits for a front-end|Connected to the front-end) .*\n/gm;

/** A directory that is removed at the end of the block. */
export interface TemporaryDirectory extends Disposable {
  path: string;
}

/** Makes a directory that is removed at the end of the block. */
export function temporary(): TemporaryDirectory {
  const path = Deno.makeTempDirSync({ prefix: "vhostd-test-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** A device that `vhostd` serves, as a user would start it, with its control socket. */
export class Backend implements AsyncDisposable {
  readonly kind: string;
  readonly socketPath: string;
  readonly controlPath: string;
  #cli: CliProcess;
  readonly #args: readonly string[];
  readonly #control: Deno.HttpClient;
  readonly #recordPath: string;
  readonly #connects: boolean;
  #lines = "";

  readonly #through: readonly string[] | undefined;

  private constructor(
    kind: string,
    base: string,
    flags: readonly string[],
    connects: boolean,
    through?: readonly string[],
  ) {
    this.#through = through;
    this.kind = kind;
    this.socketPath = `${base}.sock`;
    this.controlPath = `${base}.ctl`;
    this.#recordPath = `${base}.json`;
    this.#connects = connects;
    this.#args = [
      kind,
      `${connects ? "--connect" : "--socket-path"}=${this.socketPath}`,
      `--control-path=${this.controlPath}`,
      `--record=${this.#recordPath}`,
      ...flags,
    ];
    this.#cli = new CliProcess(this.#args, { through });
    this.#control = Deno.createHttpClient({
      proxy: { transport: "unix", path: this.controlPath },
    });
  }

  /**
   * Starts a back-end and waits until it listens, or until it tries to connect.
   *
   * @param kind The device's name, or the path of its module.
   * @param flags Its flags, except for the sockets and the record.
   * @param directory The directory of these.
   * @param options `connects`: QEMU listens; `insteadOf`: an ended back-end that this one replaces;
   * `through`: a command that becomes it.
   */
  static async start(
    kind: string,
    flags: readonly string[],
    directory: TemporaryDirectory,
    { connects = false, insteadOf, through }: {
      connects?: boolean;
      insteadOf?: Backend;
      through?: readonly string[];
    } = {},
  ): Promise<Backend> {
    const base = insteadOf?.socketPath.replace(/\.sock$/, "") ??
      `${directory.path}/${kind.split("/").at(-1)}-${crypto.randomUUID().slice(0, 8)}`;
    const backend = new Backend(kind, base, flags, connects, through);
    try {
      await backend.untilSays(`${connects ? "connects to" : "listens on"} ${backend.socketPath}`);
      return backend;
    } catch (error) {
      await backend[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** QEMU's arguments for the device. */
  device(qemuProperties?: GuestDevice["qemuProperties"]): GuestDevice {
    return {
      kind: this.kind,
      socketPath: this.socketPath,
      isServer: this.#connects,
      qemuProperties,
    };
  }

  /** Waits for a text on stderr. */
  async untilSays(text: string): Promise<void> {
    await withTimeout(
      this.#cli.until(text),
      TIMEOUT_MS,
      () => `The ${this.kind} has not said ${JSON.stringify(text)}`,
    );
  }

  /** Waits for the next line on stdout. */
  async line(): Promise<string> {
    while (!this.#lines.includes("\n")) {
      const text = await withTimeout(
        this.#cli.readStdout(),
        TIMEOUT_MS,
        () => `The ${this.kind} has printed no line, only ${JSON.stringify(this.#lines)}`,
      );
      assert(text !== undefined, `The ${this.kind} has ended its stdout`);
      this.#lines += text;
    }
    const end = this.#lines.indexOf("\n");
    const line = this.#lines.slice(0, end);
    this.#lines = this.#lines.slice(end + 1);
    return line;
  }

  /** The current record, from the control socket. */
  async record(): Promise<RecordJson> {
    return await this.#ask("GET", "record") as RecordJson;
  }

  /** Polls the record for a condition that has no event. */
  async until(
    isTrue: (record: RecordJson) => boolean,
    timeoutMs: number = TIMEOUT_MS,
  ): Promise<RecordJson> {
    for (const start = performance.now();;) {
      const record = await this.record();
      if (isTrue(record)) return record;
      assert(performance.now() - start < timeoutMs, `${isTrue} of ${JSON.stringify(record)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Runs a command of the device, through the control socket. */
  async post(command: string, body?: unknown): Promise<unknown> {
    return await this.#ask("POST", command, body === undefined ? null : JSON.stringify(body));
  }

  async #ask(method: string, path: string, body: string | null = null): Promise<unknown> {
    const response = await fetch(`http://localhost/${path}`, {
      client: this.#control,
      method,
      body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const text = await response.text();
    assert(response.ok, `${method} /${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  /** Kills it by SIGKILL, starts it again, and waits until it listens. */
  async crash(): Promise<void> {
    await this.#cli[Symbol.asyncDispose]();
    this.#cli = new CliProcess(this.#args, { through: this.#through });
    this.#lines = "";
    await this.untilSays(`${this.#connects ? "connects to" : "listens on"} ${this.socketPath}`);
  }

  /** Sends a signal. */
  kill(signal: Deno.Signal): void {
    this.#cli.kill(signal);
  }

  /**
   * Ends it by SIGTERM; expects status 0, no error message and no socket file.
   *
   * @returns The record that it wrote.
   */
  async stop(): Promise<RecordJson> {
    const end = await withTimeout(
      this.#cli.stop(),
      TIMEOUT_MS,
      () => `The ${this.kind} has not ended on SIGTERM`,
    );
    const stderr = end.stderr.replaceAll(CONNECTS, "");
    assertEquals({ ...end, stderr }, { status: 0, stderr: "" });
    assert(this.#connects || !exists(this.socketPath), "The socket is still there");
    return JSON.parse(await Deno.readTextFile(this.#recordPath));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#control.close();
    await this.#cli[Symbol.asyncDispose]();
  }
}

/** Whether a path exists. */
function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * Runs a command in the guest; expects that it and each of its parts succeeds. Returns its output
 * without the last newline.
 */
export async function ok(guest: Guest, command: string): Promise<string> {
  const { status, output } = await guest.run(`set -e; ${command}`, { timeoutMs: TIMEOUT_MS });
  assertEquals(status, 0, `${command}\n${output}`);
  return output.trimEnd();
}

/** Runs a command in the guest, and expects that it fails; returns its output. */
export async function fails(guest: Guest, command: string): Promise<string> {
  const { status, output } = await guest.run(command, { timeoutMs: TIMEOUT_MS });
  assert(status !== 0, `Expected a failure of ${command}\n${output}`);
  return output;
}

/** Waits in the guest until a command prints a text. */
export async function eventually(guest: Guest, command: string, text: string): Promise<void> {
  const { status } = await guest.run(
    `timeout 50 sh -c 'until [ "$(${command})" = "${text}" ]; do usleep 50000; done'`,
    { timeoutMs: TIMEOUT_MS },
  );
  if (status !== 0) assertEquals((await guest.run(command)).output.trimEnd(), text);
}

/**
 * Runs named steps that share a guest, up to the first that fails: later ones would fail too, slowly.
 */
export async function steps(
  t: Deno.TestContext,
  named: Record<string, () => Promise<void>>,
): Promise<void> {
  for (const [name, fn] of Object.entries(named)) {
    if (!await t.step(name, fn)) return;
  }
}

/** The SHA-256 of a file, or of the output of a program on this machine. */
export async function sha256Of(path: string): Promise<string> {
  return (await run("sha256sum", [path])).slice(0, 64);
}

/** The space that a file occupies, in bytes. */
export async function allocatedBytes(path: string): Promise<number> {
  return ((await Deno.stat(path)).blocks ?? 0) * 512;
}

/** Checks an unmounted ext4 image, and expects no error in it. */
export async function expectCleanExt4(image: string): Promise<void> {
  const e2fsck = findProgram("e2fsck");
  assert(e2fsck !== undefined, "Expected e2fsck, which comes with mke2fs in e2fsprogs");
  await run(e2fsck, ["-f", "-n", image]);
}

/**
 * Features that depend on QEMU (`packed=on`, and for some devices always) and on the kernel's version:
 * only tests that ask QEMU for them check them.
 */
const RING_FORMATS = ["RING_PACKED", "IN_ORDER"];

/**
 * The names of the acknowledged feature bits and of the others that were offered, lowest bit first,
 * without those of the ring's format.
 */
export function negotiated({ features }: RecordJson): { acknowledged: string[]; left: string[] } {
  const offered = features.filter(({ offered, name }) => offered && !RING_FORMATS.includes(name));
  const names = (wanted: boolean) =>
    offered.filter(({ acknowledged }) => acknowledged === wanted).map(({ name }) => name);
  return { acknowledged: names(true), left: names(false) };
}

/** Whether the driver acknowledged packed rings. */
export function hasPackedRings({ features }: RecordJson): boolean {
  return features.find(({ name }) => name === "RING_PACKED")!.acknowledged === true;
}

/** Expectations on the record of every device that a QEMU guest uses. */
export function expectLiveRecord(record: RecordJson, guest: Guest): void {
  assertEquals(record.version, 1);
  const { total, latest } = record.connections;
  const connection = latest.at(-1)!;
  assertEquals(total, latest.length);
  assertEquals(connection.frontend?.pid, guest.pid);
  // The kernel keeps 15 characters of the name.
  assertEquals(connection.frontend?.command, "qemu-system-x86");
  assertEquals(connection.disconnectedAt, null);
  assert(connection.messages > 10, `${connection.messages} messages`);
  const status = record.status.timeline.at(-1);
  assert(status !== undefined && status.names.includes("FEATURES_OK"), JSON.stringify(status));
  assertEquals(record.status.source, "inferred");
  assertEquals(record.errors, { total: 0, latest: [] });
  const stray = record.features.filter(({ offered, acknowledged }) => acknowledged && !offered);
  assertEquals(stray, []);
  for (const queue of record.queues) {
    const { size, enabled, running, broken, errors, faults } = queue;
    assertEquals(
      { enabled, running, broken, errors, faults },
      { enabled: true, running: true, broken: false, errors: 0, faults: [] },
    );
    assert(size > 0);
  }
}

/** Expectations on the record that a back-end wrote after its front-end disconnected. */
export function expectEndedRecord(record: RecordJson): void {
  const connection = record.connections.latest.at(-1)!;
  assert(connection.disconnectedAt !== null && connection.reason !== null);
  assert(record.queues.every(({ running, inFlight }) => !running && inFlight === 0));
}
