/**
 * Cells with real network stacks on both sides: a machine whose interface a front-end joins to the
 * back-end, and a host. TCP goes between them, by iperf3.
 */
import { networkProgram } from "../../guest/programs.ts";
import { vhostdCommand } from "../../lib/backend.ts";
import { NetworkNamespace } from "../../lib/network_namespace.ts";
import { kill, spawn, withTimeout } from "../../lib/process.ts";
import { Testpmd } from "../../lib/testpmd.ts";
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
class Process implements AsyncDisposable {
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

/** What joins the machine's interface to the host's network. */
interface Backend {
  name: string;
  /** What it has the machine use. */
  mtu: number;
  /** Starts it, with all that it needs of the host; it ends with `made`. Returns its process. */
  start(
    host: NetworkNamespace,
    path: string,
    made: Made,
    flags: readonly string[],
  ): Promise<number>;
}

type Made = AsyncDisposableStack;

/** Starts a process, and waits until it has said a text. */
async function started(
  made: Made,
  command: readonly string[],
  text: string,
): Promise<Process> {
  const process = made.use(new Process(command));
  await process.until(text);
  return process;
}

/** Starts iperf3 on the host. */
export async function iperfServer(host: NetworkNamespace, made: Made): Promise<Process> {
  const command = [await networkProgram("iperf3"), "--server", "--forceflush"];
  return await started(made, [...host.through, ...command], "Server listening");
}

/** Makes the host's interface. */
export async function makeTap(host: NetworkNamespace): Promise<void> {
  await host.ip("tuntap", "add", "tap0", "mode", "tap", "vnet_hdr");
  await host.address("tap0", HOST);
}

export const OWN: Backend = {
  name: "vhostd",
  mtu: 1500,
  async start(host, path, made, flags) {
    await makeTap(host);
    const command = vhostdCommand(["net", `--socket-path=${path}`, "--tap=tap0", ...flags]);
    return (await started(made, [...host.through, ...command], "listens on")).pid;
  },
};

const PASST: Backend = {
  name: "passt --vhost-user",
  mtu: 65_520, // its default: it has no offloads
  async start(host, path, made) {
    // passt gives the machine the addresses of an interface.
    await host.ip("tuntap", "add", "lan0", "mode", "tap");
    await host.address("lan0", MACHINE);
    await host.ip("route", "add", "default", "via", HOST_ADDRESS);
    const user = Deno.uid() === 0 ? ["--runas", "0"] : [];
    const options = ["--vhost-user", "--foreground", "-4", "-i", "lan0", ...user, "-s", path];
    const command = [await networkProgram("passt"), ...options];
    return (await started(made, [...host.through, ...command], "start qemu")).pid;
  },
};

/** A relay in C: DPDK's, which polls. */
const TESTPMD: Backend = {
  name: "testpmd's relay",
  mtu: 1500,
  async start(host, path, made) {
    const testpmd = made.use(
      await Testpmd.start({
        program: await networkProgram("dpdk-testpmd"),
        devices: [`net_vhost0,iface=${path}`, "net_tap0,iface=tap0"],
        through: host.through,
      }),
    );
    await host.address("tap0", HOST);
    await testpmd.forward("io");
    return testpmd.pid;
  },
};

/** TCP from the machine to the host, and the other way. */
export function tapCells(): NetCell[] {
  const ways = ["sends", "receives"];
  const cells = (peer: Backend, variant: string) =>
    ways.map((way): NetCell => ({
      name: `tap/tcp/${way}${variant}`,
      unit: "Mbit",
      own: side(OWN, way === "receives"),
      peer: side(peer, way === "receives"),
      goals: {
        rate: { is: "at least", limit: 10_000 },
        ratio: { is: "at least", limit: 1 },
      },
    }));
  return [...cells(PASST, ""), ...cells(TESTPMD, "/relay")];
}

function side(backend: Backend, isReversed: boolean): NetSide {
  return {
    name: backend.name,
    async measure(bench, withSystemCalls) {
      await using made = new AsyncDisposableStack();
      const host = made.use(await NetworkNamespace.create());
      const machine = made.use(await NetworkNamespace.create());
      const socketPath = bench.socketPath();
      const pid = await backend.start(host, socketPath, made, bench.options.own.flags);
      await machine.join(socketPath);
      await machine.ip("link", "set", "eth0", "mtu", `${backend.mtu}`);
      await machine.address("eth0", MACHINE);
      await iperfServer(host, made);
      const client = [await networkProgram("iperf3"), "--client", HOST_ADDRESS, "--forceflush"];
      const how = ["--time", `${MAX_SECONDS}`, ...isReversed ? ["--reverse"] : []];
      await started(made, [...machine.through, ...client, ...how], "connected to");
      return await bench.sample([pid], withSystemCalls, () => machine.megabits("eth0"));
    },
  };
}
