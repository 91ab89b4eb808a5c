/** DPDK's testpmd: an independent driver of network devices, and a back-end to compare with. */
import { kill, spawn, withTimeout } from "./process.ts";
import { ToolError } from "./tool_error.ts";

const PROMPT = "testpmd> ";

/** How long it may take for a command, in milliseconds. */
const TIMEOUT_MS = 30_000;

/** How much of its output is kept while it works on a command, in characters. */
const MAX_TEXT = 2 ** 16;

export interface TestpmdOptions {
  /** The path of the program. */
  program: string;
  /** Each device with its settings, such as `net_virtio_user0,path=/run/net.sock,packed_vq=1`. */
  devices: readonly string[];
  /** @default {1} */
  queues?: number;
  /** The processor that sends and receives packets. @default {1} */
  processor?: number;
  /** Words before its command, such as those that enter a network namespace. */
  through?: readonly string[];
}

/** The counts of all devices together. */
export interface TestpmdCounts {
  received: number;
  receivedBytes: number;
  sent: number;
  sentBytes: number;
}

/** A testpmd that takes commands. It ends with this process, however that ends. */
export class Testpmd implements AsyncDisposable {
  readonly pid: number;
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  readonly #stdout: ReadableStreamDefaultReader<string>;
  readonly #stderr: Promise<string>;

  private constructor(
    { program, devices, queues = 1, processor = 1, through = [] }: TestpmdOptions,
  ) {
    const [first, ...words] = [...through, "stdbuf", "-o0", program];
    this.#child = spawn(first, [
      ...words,
      ...["virtio", "vhost", "tap"].flatMap((name) => ["-d", `librte_net_${name}.so`]),
      ...devices.flatMap((device) => ["--vdev", device]),
      ...["-d", "librte_mempool_ring.so", "-m", "256"],
      ...["--no-pci", "--no-huge", "--no-shconf", "--no-telemetry"],
      ...["--lcores", `0@0,1@${processor}`, "--"],
      ...["--total-num-mbufs=8192", `--rxq=${queues}`, `--txq=${queues}`, "--interactive"],
      // Before it forwards it takes what waits in the queues, and does not always count that: 32 to
      // 128 packets were missing in 4 of 43 runs, and none in 60 without.
      "--no-flush-rx",
    ], { stdin: "piped", stdout: "piped", stderr: "piped" });
    this.pid = this.#child.pid;
    this.#stdin = this.#child.stdin.getWriter();
    this.#stdout = this.#child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    this.#stderr = new Response(this.#child.stderr).text();
  }

  /** Starts it, and waits until it takes commands. */
  static async start(options: TestpmdOptions): Promise<Testpmd> {
    const testpmd = new Testpmd(options);
    try {
      await testpmd.#answer("its start");
      return testpmd;
    } catch (error) {
      await testpmd[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Gives it a command; returns what it says. */
  async ask(command: string): Promise<string> {
    await this.#stdin.write(new TextEncoder().encode(`${command}\n`));
    return await this.#answer(command);
  }

  async #answer(command: string): Promise<string> {
    let text = "";
    while (!text.endsWith(PROMPT)) {
      const { value, done } = await withTimeout(
        this.#stdout.read(),
        TIMEOUT_MS,
        () => `testpmd does not answer ${command} after ${TIMEOUT_MS} ms`,
      );
      if (done) throw new ToolError(`testpmd ended: ${(await this.#stderr).trim()}`);
      text = (text + value).slice(-MAX_TEXT);
    }
    return text;
  }

  /**
   * Sends packets, receives them or both: `txonly`, `rxonly`, `macswap`, …
   *
   * @param bursts How many bursts of packets it sends first, for modes that return packets.
   */
  async forward(mode: string, bursts = 0): Promise<void> {
    await this.ask("stop"); // It may do something else.
    await this.ask(`set fwd ${mode}`);
    await this.ask(bursts > 0 ? `start tx_first ${bursts}` : "start");
  }

  async counts(): Promise<TestpmdCounts> {
    const text = await this.ask("show port stats all");
    const number = (name: string) => {
      const all = [...text.matchAll(new RegExp(`${name}: +(\\d+)`, "g"))];
      if (all.length === 0) throw new ToolError(`Expected ${name} of testpmd, got ${text}`);
      return all.reduce((sum, [, digits]) => sum + Number(digits), 0);
    };
    return {
      received: number("RX-packets"),
      receivedBytes: number("RX-bytes"),
      sent: number("TX-packets"),
      sentBytes: number("TX-bytes"),
    };
  }

  /** Tells it to end; returns its status. */
  async quit(): Promise<Deno.CommandStatus> {
    await this.#stdin.write(new TextEncoder().encode("quit\n"));
    while (!(await this.#stdout.read()).done);
    return await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    kill(this.#child);
    await this.#child.status;
    await this.#stderr;
    await this.#stdout.cancel();
    await this.#stdin.close().catch(() => {}); // It has ended.
  }
}
