/** Network namespaces with a kernel's whole network stack each; for root. */
import { busybox } from "../guest/file_tree.ts";
import { kill, spawn, withTimeout } from "./process.ts";
import type { TapFrontendOptions } from "./tap_frontend.ts";
import { ToolError } from "./tool_error.ts";

/** The program that joins a TAP to a back-end. */
const TAP_FRONTEND = new URL("tap_frontend.ts", import.meta.url).pathname;

/** How long a command in a namespace may take, in milliseconds. */
const LIMIT_MS = 30_000;

/** Waits until a process has printed something; returns false when it ended before. */
export async function hasPrinted(process: Deno.ChildProcess): Promise<boolean> {
  const reader = process.stdout.getReader();
  const { done } = await reader.read();
  reader.releaseLock();
  return !done;
}

/** A network namespace, which ends with the block. */
export class NetworkNamespace implements AsyncDisposable {
  readonly #holder: Deno.ChildProcess;
  readonly #busybox: string;
  readonly #run: Deno.ChildProcess[] = [];
  /** What front-ends said. */
  readonly #complaints: Promise<string>[] = [];

  private constructor(holder: Deno.ChildProcess, busybox: string) {
    this.#holder = holder;
    this.#busybox = busybox;
  }

  static async create(): Promise<NetworkNamespace> {
    const holder = spawn("unshare", ["--net", "sh", "-c", "echo; exec sleep 1d"], {
      stdin: "null",
      stdout: "piped",
    });
    if (!await hasPrinted(holder)) throw new ToolError("Expected a network namespace: run as root");
    const namespace = new NetworkNamespace(holder, await busybox());
    await namespace.ip("link", "set", "lo", "up");
    return namespace;
  }

  /** A command that runs another one in the namespace. */
  get through(): string[] {
    return ["nsenter", `--target=${this.#holder.pid}`, "--net", "--"];
  }

  /** The file that stands for it. */
  get path(): string {
    return `/proc/${this.#holder.pid}/ns/net`;
  }

  /** Starts a shell's script, with busybox as `$0`. */
  start(script: string, stdin: "null" | "piped" = "null"): Deno.ChildProcess {
    return this.#start(["sh", "-ec", script, this.#busybox], stdin);
  }

  /**
   * The same in a PID namespace: when the shell is killed, all that it started ends, which would hold
   * its streams. A signal that can be caught does not reach it.
   */
  #startWhole(script: string): Deno.ChildProcess {
    const apart = ["unshare", "--pid", "--fork", "--kill-child"];
    return this.#start([...apart, "sh", "-ec", script, this.#busybox], "null");
  }

  #start(command: readonly string[], stdin: "null" | "piped"): Deno.ChildProcess {
    const [program, ...args] = [...this.through, ...command];
    const child = spawn(program, args, { stdin, stdout: "piped", stderr: "piped" });
    this.#run.push(child);
    return child;
  }

  /** Runs a shell's script, with busybox as `$0`; returns what it printed. */
  async run(script: string): Promise<string> {
    const child = this.#startWhole(script);
    const late = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
    const { success, stdout, stderr } = await child.output();
    clearTimeout(late);
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    if (!success) throw new ToolError(`${script}\n${out}${err}`);
    return out;
  }

  /** Runs a program of busybox. */
  async ok(...words: string[]): Promise<string> {
    return await this.run(`"$0" ${words.join(" ")}`);
  }

  /** Runs `ip`, of iproute2. */
  async ip(...words: string[]): Promise<string> {
    return await this.run(`ip ${words.join(" ")}`);
  }

  /** A file of /proc/net. */
  async procNet(name: string): Promise<string> {
    return await Deno.readTextFile(`/proc/${this.#holder.pid}/net/${name}`);
  }

  /** Sets an interface up with addresses. */
  async address(name: string, number: number): Promise<void> {
    await this.ip("addr", "add", `10.9.0.${number}/24`, "dev", name);
    await this.run(
      `echo 0 >/proc/sys/net/ipv6/conf/${name}/accept_dad; ` +
        `ip -6 addr add fd09::${number}/64 dev ${name} nodad`,
    );
    await this.ip("link", "set", name, "up");
  }

  /** Joins the interface `eth0` to the back-end of a network device, as a guest's driver does. */
  async join(socketPath: string, options: TapFrontendOptions = {}): Promise<void> {
    const command = `${Deno.execPath()} run -A --quiet ${TAP_FRONTEND} ${socketPath} eth0`;
    const frontend = this.start(`exec ${command} '${JSON.stringify(options)}'`);
    const complaints = new Response(frontend.stderr).text();
    if (!await hasPrinted(frontend)) throw new ToolError(await complaints);
    this.#complaints.push(complaints);
  }

  /** What an interface has received and sent, in Mbit. */
  async megabits(name: string): Promise<number> {
    const row = (await this.procNet("dev")).match(new RegExp(`${name}:(.*)`))![1];
    const fields = row.trim().split(/\s+/).map(Number);
    return (fields[0] + fields[8]) * 8 / 1e6; // bytes received, sent
  }

  /**
   * Listens on a TCP port for one connection.
   *
   * @returns What waits for the sum of all that came, as `sha256sum` prints it.
   */
  async receives(port: number): Promise<() => Promise<string>> {
    const output = this.#startWhole(
      `exec 3>&1; "$0" nc -l -p ${port} -e sh -c "sha256sum >&3"`,
    )
      .output();
    // It does not tell when it listens.
    const listening = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, "0")} 0+:0000 0A`);
    while (!listening.test(await this.procNet("tcp6") + await this.procNet("tcp"))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return async () => {
      const { stdout } = await withTimeout(output, LIMIT_MS, () => `Nothing ends on port ${port}`);
      return new TextDecoder().decode(stdout).trim();
    };
  }

  /**
   * Sends `bytes` bytes of text by TCP to another namespace, and expects that they arrive.
   *
   * @param address The address of the other.
   */
  async sendTo(other: NetworkNamespace, address: string, bytes: number): Promise<void> {
    const received = await other.receives(5000);
    const content = `yes a packet | head -c ${bytes}`;
    const [sum] = await Promise.all([
      this.run(`${content} | sha256sum`),
      this.run(`"$0" nc ${address} 5000 -e sh -c "${content}"`),
    ]);
    const got = await received();
    if (got !== sum.trim()) throw new ToolError(`Expected bytes with the sum ${sum}, got ${got}`);
  }

  /** The kernel's counters of packets, by names such as `UdpNoPorts` and `Udp6NoPorts`. */
  async counters(): Promise<Record<string, number>> {
    const words = (text: string) => text.trim().split("\n").map((row) => row.trim().split(/\s+/));
    const rows = words(await this.procNet("snmp") + await this.procNet("netstat"));
    const counters: [string, number][] = [];
    for (let i = 0; i + 1 < rows.length; i += 2) {
      const group = rows[i][0].replace(":", "");
      rows[i].slice(1).forEach((name, at) => {
        counters.push([group + name, Number(rows[i + 1][at + 1])]);
      });
    }
    for (const [name, value] of words(await this.procNet("snmp6"))) {
      counters.push([name, Number(value)]);
    }
    return Object.fromEntries(counters);
  }

  /** Packets that the kernel found wrong, by counter. */
  async errors(): Promise<Record<string, number>> {
    const wrong = Object.entries(await this.counters()).filter(([name, value]) =>
      /(In(Hdr|Csum)?Err(or)?s|ReasmFails)$/.test(name) && value > 0
    );
    return Object.fromEntries(wrong);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of [...this.#run, this.#holder]) {
      kill(child);
      await child.status;
      for (const stream of ["stdout", "stderr"] as const) {
        try {
          if (!child[stream].locked) await child[stream].cancel();
        } catch {
          // It was not piped.
        }
      }
    }
    const complaints = (await Promise.all(this.#complaints)).join("");
    if (complaints !== "") console.error(complaints);
  }
}
