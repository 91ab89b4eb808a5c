/** A Linux guest in a real QEMU, driven by a program. */
import { Scratch } from "../lib/scratch.ts";
import { Console, toBytes } from "./console.ts";
import { initramfs } from "./initramfs.ts";
import { debianKernel } from "./kernel.ts";
import { kill, spawn, withTimeout } from "../lib/process.ts";
import {
  type BootFiles,
  hasKvm,
  machineArguments,
  type MachineOptions,
  qemuProgram,
} from "./qemu.ts";
import { Qmp } from "../../src/cli/watch/qmp.ts";
import { ToolError } from "../lib/tool_error.ts";

/** What a guest boots, and on what machine. */
export interface GuestOptions extends MachineOptions {
  /** The path of a kernel. @default {Debian's, downloaded once} */
  kernel?: string;
  /** Whether Debian's kernel is that of the release's backports. @default {false} */
  isKernelNewer?: boolean;
  /** The path of an initramfs: one with a shell for Debian's kernel, else none by default. */
  initrd?: string;
  /**
   * The guest's name of the root disk, such as `/dev/vda`. Without one the guest stays in the
   * initramfs, which has a shell too.
   */
  root?: string;
  /** More words for the kernel's command line. */
  append?: string;
  /** How long the guest may take to its shell's prompt. @default {60_000} */
  bootTimeoutMs?: number;
  /** Words before QEMU's command, such as those that enter a network namespace. */
  through?: readonly string[];
  signal?: AbortSignal;
}

/** What a command in the guest has done. */
export interface CommandResult {
  status: number;
  /** What it printed on stdout and stderr, as UTF-8. */
  output: string;
  /** The same, as bytes. */
  bytes: Uint8Array<ArrayBuffer>;
}

/** How long the shell may take to begin with the agent before it is nudged. */
const NUDGE_MS = 5000;

/** A root shell that waits for a command: `guest:~# ` and the like. */
// deno-lint-ignore no-control-regex
export const PROMPT = /# (\x1b\[[^a-zA-Z]*[a-zA-Z])*$/;

/**
 * What the shell is told to do: take commands from lines `ID BASE64`, mark where the output of each
 * begins and ends, and say its status. Neither is the terminal to echo or change anything.
 */
const AGENT = "stty raw -echo; export TERM=dumb; printf '\\036ready\\n'; " +
  "while read -r id command; do printf '\\036%s\\n' $id; " +
  'sh -c "$(printf %s "$command" | base64 -d)" </dev/null 2>&1; ' +
  "printf '\\036%s %d\\n' $id $?; done\n";

/**
 * What Linux need not do under TCG: a fifth of its boot, and a check of timer interrupts that fails
 * on a busy machine ("IO-APIC + timer doesn't work").
 */
const TCG_WORDS = [
  "mitigations=off",
  "cryptomgr.notests",
  "initcall_blacklist=init_kprobe_trace",
  "no_timer_check",
  // Saves 8192 reads for unannounced host bridges: half of a boot's accesses to registers
  "pci=lastbus=0",
];

/** Makes what is missing, and says what a guest boots. */
export async function bootFiles(options: GuestOptions): Promise<BootFiles> {
  let { kernel, initrd } = options;
  if (kernel === undefined) {
    const debian = await debianKernel(options.isKernelNewer);
    kernel = debian.image;
    initrd ??= await initramfs(debian);
  }
  const words = [
    "console=ttyS0",
    // The console belongs to the shell; `dmesg` has the kernel's messages.
    "loglevel=1",
    ...hasKvm() ? [] : tcgWords(),
    // Linux resets a microvm by a triple fault: without the word QEMU never reset it in 7 of 15
    // first reboots with a mounted disk.
    ...options.machine === "microvm" ? ["reboot=t"] : [],
    ...options.root === undefined ? [] : [`root=${options.root} rw`],
    options.append ?? "",
  ];
  return { kernel, initrd, commandLine: words.join(" ").trim() };
}

/**
 * What a guest under TCG is told. The PIT is often too late there to measure the processor's clock
 * by: three boots of a microvm in ten hung, none in thirty with the frequency given, which is this
 * machine's; and a third of a q35's accesses to registers were for it.
 */
function tcgWords(): string[] {
  const cpuinfo = Deno.readTextFileSync("/proc/cpuinfo");
  const [, mhz] = cpuinfo.match(/^cpu MHz\s*: (\d+\.\d+)$/m) ?? [];
  return mhz === undefined
    ? TCG_WORDS
    : [...TCG_WORDS, `tsc_early_khz=${Math.round(Number(mhz) * 1000)}`];
}

/**
 * Assertions of QEMU's TCG, one of which fails in some hundreds of boots with several processors: an
 * access goes by a map of the machine's memory that another processor has just replaced, to a section
 * that is not there or to another one, such as the MSI-X table beyond its end.
 */
const QEMU_FAULT = /: (iotlb_to_section|msix_table_mmio_write): Assertion /;

/**
 * Whether a processor runs in the kernel with its interrupts off, and so waits for another processor
 * and for no device: one boot in some hundreds hangs so under TCG, the other processor asleep.
 */
export function isStuck(processors: string): boolean {
  return [...processors.matchAll(/^RIP=[8-9a-f]\w* RFL=(\w+) .*HLT=0$/gm)]
    .some(([, flags]) => (parseInt(flags, 16) & INTERRUPTS_ON) === 0);
}

const INTERRUPTS_ON = 0x200;

/** A running guest with a root shell on its serial console. */
export class Guest {
  #process: Deno.ChildProcess;
  #console: Console;
  #qmp!: Qmp;
  #stderr: Promise<string>;
  #nextId = 1;
  /** How long the guest may take to a shell. */
  #timeoutMs: number;

  private constructor(process: Deno.ChildProcess, timeoutMs: number) {
    this.#process = process;
    this.#stderr = new Response(process.stderr).text();
    this.#console = new Console(process.stdout, process.stdin, () => this.#whyEnded());
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Boots a guest and waits for the prompt of its shell. It is started once more where the machine
   * is known to fail: a microvm that does not come up in half of the time (some hang before their
   * kernel reads the words above), and a QEMU that ends by {@linkcode QEMU_FAULT}.
   */
  static async boot(options: GuestOptions = {}): Promise<Guest> {
    const qemu = await qemuProgram(options);
    const args = await machineArguments(options, await bootFiles(options));
    const { bootTimeoutMs = 60_000, machine, through = [], signal } = options;
    const command = [...through, qemu, ...args];
    try {
      const firstMs = machine === "microvm" ? bootTimeoutMs / 2 : bootTimeoutMs;
      const guest = await Guest.#start(command, firstMs, signal);
      guest.#timeoutMs = bootTimeoutMs;
      return guest;
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof ToolError)) throw error;
      if (machine !== "microvm" && !QEMU_FAULT.test(error.message)) throw error;
      console.warn(`guest: started once more. ${error.message}`);
    }
    return await Guest.#start(command, bootTimeoutMs, signal);
  }

  static async #start(
    [program, ...args]: string[],
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Guest> {
    using scratch = new Scratch("vhostd-qmp-");
    const path = `${scratch.directory()}/sock`;
    using listener = Deno.listen({ transport: "unix", path });
    const process = spawn(program, [
      ...args,
      ...["-chardev", "stdio,id=console,signal=off"],
      ...["-serial", "chardev:console"],
      ...["-qmp", `unix:${path}`],
    ], { stdin: "piped", stdout: "piped", stderr: "piped", signal });
    const guest = new Guest(process, timeoutMs);
    try {
      await guest.#connect(listener);
      await guest.#takeShell();
      return guest;
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** The last of what the guest printed on its console. */
  get log(): string {
    return this.#console.log;
  }

  /** Runs a command in the guest's root shell. Its stdin is empty. */
  async run(
    command: string,
    { timeoutMs = 60_000 }: { timeoutMs?: number } = {},
  ): Promise<CommandResult> {
    const id = this.#nextId++;
    const base64 = new TextEncoder().encode(command).toBase64();
    await this.#console.write(`${id} ${base64}\n`);
    await this.#console.readUntil(`\x1e${id}\n`, timeoutMs);
    const text = await this.#console.readUntil(`\x1e${id} `, timeoutMs);
    const status = Number(await this.#console.readUntil("\n", timeoutMs));
    const bytes = toBytes(text);
    return { status, output: new TextDecoder().decode(bytes), bytes };
  }

  async qmp(command: string, args?: object): Promise<unknown> {
    return await this.#qmp.execute(command, args);
  }

  /** Waits for the next QMP event of a name, such as `RESET`; ask before doing what causes it. */
  qmpEvent(name: string): Promise<unknown> {
    return this.#qmp.event(name);
  }

  /**
   * Restarts the guest, and waits for its shell again. QEMU and its connections to the back-ends
   * stay.
   */
  async reboot(): Promise<void> {
    await this.#restart(() => this.#order("reboot -f"));
  }

  /** Resets the machine at once, whatever the guest is doing, and waits for its shell again. */
  async reset(): Promise<void> {
    await this.#restart(() => this.qmp("system_reset"));
  }

  /** Powers the guest off, and waits until QEMU has ended. */
  async powerOff(): Promise<void> {
    await this.#order("poweroff -f");
    await this.waitPowerOff();
  }

  /** Waits until the guest has powered off and QEMU has ended. */
  async waitPowerOff({ timeoutMs = 60_000 }: { timeoutMs?: number } = {}): Promise<void> {
    const { success } = await withTimeout(
      this.#process.status,
      timeoutMs,
      () => `The guest has not powered off within ${timeoutMs} ms`,
    );
    if (!success) throw new ToolError(await this.#whyEnded());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    kill(this.#process);
    await this.#process.status;
    await Promise.all([
      this.#console[Symbol.asyncDispose](),
      this.#qmp?.[Symbol.asyncDispose](),
      this.#stderr,
    ]);
  }

  async #restart(begin: () => Promise<unknown>): Promise<void> {
    const reset = this.#qmp.event("RESET");
    await begin();
    await withTimeout(
      reset,
      this.#timeoutMs,
      () => `The guest has not restarted within ${this.#timeoutMs} ms`,
    );
    await this.#takeShell();
  }

  /** What is written is on the disk before the guest ends, in any way. */
  async #order(command: string): Promise<void> {
    await this.run("sync");
    const base64 = new TextEncoder().encode(command).toBase64();
    await this.#console.write(`${this.#nextId++} ${base64}\n`);
  }

  async #connect(listener: Deno.Listener): Promise<void> {
    const ended = this.#process.status.then(async () => {
      throw new ToolError(await this.#whyEnded());
    });
    ended.catch(() => {});
    this.#qmp = await withTimeout(
      // When the connection is closed, QEMU is about to say why.
      Promise.race([Qmp.accept(listener).catch(() => ended), ended]),
      this.#timeoutMs,
      () => `QEMU has not started within ${this.#timeoutMs} ms`,
    );
  }

  /** @param isLast Whether a kernel that hangs by itself is an error. */
  async #takeShell(isLast = false): Promise<void> {
    let nudges: ReturnType<typeof setInterval> | undefined;
    try {
      await this.#console.readUntil(PROMPT, this.#timeoutMs);
      await this.#console.write(AGENT);
      // On a busy machine the shell has been seen to lose the line's end. For the agent itself an
      // empty line is a command that does nothing.
      nudges = setInterval(() => this.#console.write("\n").catch(() => {}), NUDGE_MS);
      await this.#console.readUntil("\x1eready\n", this.#timeoutMs);
    } catch (error) {
      clearInterval(nudges);
      const processors = await this.#processors();
      if (isLast || hasKvm() || !isStuck(processors)) {
        throw new ToolError(`The guest has no shell. ${(error as Error).message}${processors}`);
      }
      console.error(`The guest's kernel hangs without interrupts; reset once more.${processors}`);
      await this.qmp("system_reset");
      await this.#takeShell(true);
    } finally {
      clearInterval(nudges);
    }
  }

  /** Where a machine that hangs has its processors; nothing if QEMU does not say. */
  async #processors(): Promise<string> {
    try {
      const registers = await withTimeout(
        this.qmp("human-monitor-command", { "command-line": "info registers -a" }),
        1000,
        () => "QEMU does not answer",
      ) as string;
      return `\nIts processors are at:\n${registers.match(/^(CPU#|.?IP=|CS =).*$/gm)?.join("\n")}`;
    } catch (error) {
      return `\nQEMU does not say where its processors are: ${(error as Error).message}`;
    }
  }

  async #whyEnded(): Promise<string> {
    const { code, signal } = await this.#process.status;
    const reason = (await this.#stderr).trim();
    return `QEMU ended ${signal ? `by ${signal}` : `with status ${code}`}: ${reason}`;
  }
}
