/** A back-end that runs in a process of its own: vhostd, or what it is compared with. */
import type { RecordJson } from "../../src/runtime/record.ts";
import { processTime } from "./clock.ts";
import { kill, spawn, withTimeout } from "./process.ts";
import { ToolError } from "./tool_error.ts";

const VHOSTD = new URL("../../main.ts", import.meta.url).pathname;

/** How long a back-end may take to listen, to end or to answer. */
const TIMEOUT_MS = 30_000;

/** How much of what it says last is kept, in characters: it may say why it ended. */
const MAX_WORDS = 2000;

/** The command that runs vhostd with some arguments. */
export function vhostdCommand(
  args: readonly string[],
  v8Flags: readonly string[] = [],
): [string, ...string[]] {
  const modules = args.flatMap((arg) => /^(?:--handler=|(?!-))(.+\.m?[tj]s)$/.exec(arg)?.[1] ?? []);
  const config = modules.map(configOf).find(Boolean);
  return [
    ...[Deno.execPath(), "run", "--quiet", "--allow-all"] as const,
    ...config === undefined ? [] : [`--config=${config}`],
    ...v8Flags.length === 0 ? [] : [`--v8-flags=${v8Flags.join(",")}`],
    VHOSTD,
    ...args,
  ];
}

/**
 * The deno.json beside a device's or network's module, if it leads to vhostd as that of `vhostd new` does: the
 * module may import what only that knows.
 */
function configOf(module: string): string | undefined {
  try {
    const path = `${Deno.realPathSync(module).replace(/[^/]*$/, "")}deno.json`;
    const { links } = JSON.parse(Deno.readTextFileSync(path));
    return Array.isArray(links) && links.length > 1 ? path : undefined;
  } catch {
    return undefined; // There is none, or one with comments.
  }
}

/** Where a back-end is reached, and how it is run. */
export interface BackendOptions {
  /** What it is called in messages. @default {the socket's path} */
  name?: string;
  socketPath: string;
  controlPath?: string;
  /** A Ctrl-C is not for it: the tool ends it. @default {false} */
  isDetached?: boolean;
  /** What it says once it listens goes to stderr. @default {false} */
  isLoud?: boolean;
}

/** A back-end's process. It ends with this one, however that ends. */
export class Backend implements AsyncDisposable {
  readonly name: string;
  readonly socketPath: string;
  readonly pid: number;
  /** Resolves when it ends, for whatever reason. */
  readonly ended: Promise<Deno.CommandStatus>;
  /** Rejects when it ends before it is told to. Never resolves. */
  readonly failed: Promise<never>;
  /** What it writes to stdout until its end. */
  readonly stdout: Promise<string>;
  readonly #options: BackendOptions;
  readonly #child: Deno.ChildProcess;
  readonly #listens = Promise.withResolvers<void>();
  readonly #reading: Promise<void>;
  #control: Deno.HttpClient | undefined;
  #words = "";
  #isEnding = false;

  constructor([program, ...args]: readonly [string, ...string[]], options: BackendOptions) {
    this.#options = options;
    this.socketPath = options.socketPath;
    this.name = options.name ?? options.socketPath;
    this.#child = spawn(program, args, {
      ...{ stdin: "null", stdout: "piped", stderr: "piped" },
      env: { NO_COLOR: "1" },
      detached: options.isDetached,
    });
    this.pid = this.#child.pid;
    this.ended = this.#child.status;
    this.stdout = new Response(this.#child.stdout).text();
    this.#reading = this.#read();
    this.failed = this.#fail();
    this.failed.catch(() => {});
  }

  async #read(): Promise<void> {
    const text = `listens on ${this.socketPath}`;
    let listens = false;
    for await (const chunk of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      if (listens && this.#options.isLoud) await Deno.stderr.write(new TextEncoder().encode(chunk));
      this.#words = (this.#words + chunk).slice(-MAX_WORDS);
      listens ||= this.#words.includes(text);
      if (listens) this.#listens.resolve();
    }
  }

  async #fail(): Promise<never> {
    const { code, signal } = await this.ended;
    await this.#reading;
    if (this.#isEnding) return await new Promise<never>(() => {});
    throw new ToolError(
      `${this.name} ended by itself, with ${signal ?? `status ${code}`}: ${this.#words.trim()}`,
    );
  }

  /** Waits until vhostd says that it listens. */
  async listening(): Promise<void> {
    await withTimeout(
      Promise.race([this.#listens.promise, this.failed]),
      TIMEOUT_MS,
      () => `${this.name} does not listen after ${TIMEOUT_MS} ms`,
    );
  }

  /** Waits until the socket of any back-end takes a connection, which is closed again. */
  async accepting(): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    const connect = async () => {
      for (;;) {
        try {
          return (await Deno.connect({ transport: "unix", path: this.socketPath })).close();
        } catch (error) {
          const isEarly = error instanceof Deno.errors.NotFound ||
            error instanceof Deno.errors.ConnectionRefused;
          if (!isEarly || performance.now() > deadline) throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    };
    await Promise.race([connect(), this.failed]);
  }

  /** Its processor time until now, in microseconds. */
  processorUs(): number {
    return processTime(this.pid) / 1000;
  }

  async post(command: string, body: unknown): Promise<void> {
    await this.#ask("POST", command, JSON.stringify(body));
  }

  async record(): Promise<RecordJson> {
    return JSON.parse(await this.#ask("GET", "record"));
  }

  async #ask(method: string, command: string, body?: string): Promise<string> {
    const path = this.#options.controlPath!;
    this.#control ??= Deno.createHttpClient({ proxy: { transport: "unix", path } });
    const response = await fetch(`http://localhost/${command}`, {
      client: this.#control,
      method,
      body,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const text = await response.text();
    if (!response.ok) throw new ToolError(`${this.name} refused ${method} /${command}: ${text}`);
    return text;
  }

  /** Ends it, and waits until it is gone; it is killed when it takes longer than `patienceMs`. */
  async end(signal: Deno.Signal = "SIGTERM", patienceMs = TIMEOUT_MS): Promise<Deno.CommandStatus> {
    this.#isEnding = true;
    this.#control?.close();
    this.#control = undefined;
    kill(this.#child, signal);
    const timer = setTimeout(() => kill(this.#child), patienceMs);
    const status = await this.ended;
    clearTimeout(timer);
    await this.#reading;
    await this.stdout;
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

export interface Holding {
  /** Resident memory in bytes, without the guest's, which is shared. */
  residentBytes: number;
  fds: number;
  threads: number;
}

/** What a process holds now; nothing if it is gone. */
export function holding(pid: number): Holding | undefined {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const number = (name: string) => Number(status.match(`${name}:\\s+(\\d+)`)?.[1]);
    return {
      residentBytes: (number("RssAnon") + number("RssFile")) * 1024,
      fds: [...Deno.readDirSync(`/proc/${pid}/fd`)].length,
      threads: number("Threads"),
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if ((error as { code?: string }).code === "ESRCH") return undefined;
    throw error;
  }
}
