/**
 * Cells with real network stacks on both sides: a machine whose interface a front-end joins to the
 * back-end, and a host. TCP goes between them, by iperf3.
 */
import { networkProgram } from "../../guest/programs.ts";
import { vhostdCommand } from "../../lib/backend.ts";
import { NetworkNamespace } from "../../lib/network_namespace.ts";
import { kill, spawn, withTimeout } from "../../lib/process.ts";
import { ToolError } from "../../lib/tool_error.ts";
import type { NetCell, NetSide } from "./cell.ts";

/** The numbers of the two in the network 10.9.0.0/24. */
const HOST = 1;
export const MACHINE = 2;

/** The address of the host. */
export const HOST_ADDRESS = `10.9.0.${HOST}`;

/** How long a process may take to start, in milliseconds. */
const TIMEOUT_MS = 10_000;

/** Longer than any run. */
export const MAX_SECONDS = 3600;

/** How much of what a process says is kept, in characters. */
const MAX_TEXT = 2000;

/** A process that ends with the block. */
export class Process implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  #text = "";
  #hasEnded = false;
  #onText = () => {};

  constructor(command: readonly string[]) {
    this.#child = spawn("sh", ["-c", 'exec "$@" 2>&1', "sh", ...command], {
      ...{ stdin: "null", stdout: "piped", stderr: "null" },
      env: { NO_COLOR: "1" },
    });
    this.#reading = this.#read();
  }

  get pid(): number {
    return this.#child.pid;
  }

  async #read(): Promise<void> {
    for await (const chunk of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      this.#text = (this.#text + chunk).slice(-MAX_TEXT);
      this.#onText();
    }
    this.#hasEnded = true;
    this.#onText();
  }

  /** Waits until it has said a text. */
  async until(text: string): Promise<void> {
    const said = async () => {
      while (!this.#text.includes(text)) {
        if (this.#hasEnded) throw new ToolError(`Expected ${text}, got ${this.#text.trim()}`);
        await new Promise<void>((resolve) => this.#onText = resolve);
      }
    };
    await withTimeout(said(), TIMEOUT_MS, () => `Expected ${text}, got ${this.#text.trim()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    kill(this.#child);
    await this.#child.status;
    await this.#reading;
  }
}

interface Backend {
  name: string;
  command(socketPath: string, flags: readonly string[]): Promise<string[]>;
  /** What it says when it listens. */
  ready: string;
  /** What it has the machine use. */
  mtu: number;
  /** The host's interface, its address and what else it needs before the back-end starts. */
  prepare(host: NetworkNamespace): Promise<void>;
}

export const OWN: Backend = {
  name: "vhostd",
  ready: "listens on",
  mtu: 1500,
  async prepare(host) {
    await host.ip("tuntap", "add", "tap0", "mode", "tap", "vnet_hdr");
    await host.address("tap0", HOST);
  },
  command: (path, flags) =>
    Promise.resolve(vhostdCommand(["net", `--socket-path=${path}`, "--tap=tap0", ...flags])),
};

const PASST: Backend = {
  name: "passt --vhost-user",
  ready: "start qemu",
  mtu: 65_520, // its default: it has no offloads
  // passt gives the machine the addresses of an interface.
  async prepare(host) {
    await host.ip("tuntap", "add", "lan0", "mode", "tap");
    await host.address("lan0", MACHINE);
    await host.ip("route", "add", "default", "via", HOST_ADDRESS);
  },
  async command(path) {
    const program = await networkProgram("passt");
    const user = Deno.uid() === 0 ? ["--runas", "0"] : [];
    return [program, "--vhost-user", "--foreground", "-4", "-i", "lan0", ...user, "-s", path];
  },
};

/** TCP from the machine to the host, and the other way. */
export function tapCells(): NetCell[] {
  return ["sends", "receives"].map((way) => ({
    name: `tap/tcp/${way}`,
    unit: "Mbit",
    own: side(OWN, way === "receives"),
    peer: side(PASST, way === "receives"),
    goals: {
      rate: { is: "at least", limit: 10_000 },
      ratio: { is: "at least", limit: 1 },
    },
  }));
}

function side(backend: Backend, isReversed: boolean): NetSide {
  return {
    name: backend.name,
    async measure(bench, withSystemCalls) {
      await using made = new AsyncDisposableStack();
      const start = async (command: readonly string[], text: string) => {
        const process = made.use(new Process(command));
        await process.until(text);
        return process;
      };
      const host = made.use(await NetworkNamespace.create());
      const machine = made.use(await NetworkNamespace.create());
      const iperf3 = await networkProgram("iperf3");
      const socketPath = bench.socketPath();
      await backend.prepare(host);
      const command = await backend.command(socketPath, bench.options.own.flags);
      const { pid } = await start([...host.through, ...command], backend.ready);
      await machine.join(socketPath);
      await machine.ip("link", "set", "eth0", "mtu", `${backend.mtu}`);
      await machine.address("eth0", MACHINE);
      await start([...host.through, iperf3, "--server", "--forceflush"], "Server listening");
      const client = [iperf3, "--client", HOST_ADDRESS, "--time", `${MAX_SECONDS}`, "--forceflush"];
      const reverse = isReversed ? ["--reverse"] : [];
      await start([...machine.through, ...client, ...reverse], "connected to");
      return await bench.sample([pid], withSystemCalls, () => machine.megabits("eth0"));
    },
  };
}
