/** Counting a process's system calls, with what the machine has for that. */
import { findProgram, spawn } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";

/** A way of counting. */
export interface SystemCallCounter {
  /** How it counts, for the table's notes. */
  readonly about: string;
  /** Counts what a process does while `during` runs. */
  count(pid: number, during: () => Promise<void>): Promise<number>;
}

/** perf's name of every system call's entry. */
const EVENT = "raw_syscalls:sys_enter";

/** A counter if this machine allows one: perf, else strace. */
export async function systemCallCounter(): Promise<SystemCallCounter | undefined> {
  const perf = findProgram("perf");
  if (perf) {
    const counter = new Perf(perf);
    if (await works(counter)) return counter;
  }
  const strace = findProgram("strace");
  if (strace) {
    const counter = new Strace(strace);
    if (await works(counter)) return counter;
  }
  return undefined;
}

async function works(counter: SystemCallCounter): Promise<boolean> {
  const child = spawn("sleep", ["60"], { stdin: "null" });
  try {
    return Number.isFinite(await counter.count(child.pid, () => Promise.resolve()));
  } catch (error) {
    if (error instanceof ToolError) return false;
    throw error;
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
}

class Perf implements SystemCallCounter {
  readonly about = `counted by perf (${EVENT}) in a short run of its own`;
  readonly #program: string;

  constructor(program: string) {
    this.#program = program;
  }

  async count(pid: number, during: () => Promise<void>): Promise<number> {
    // perf counts from before its command starts until that has ended.
    const child = spawn(this.#program, [
      ...["stat", "-x;", "-e", EVENT, "-p", String(pid), "--"],
      ...["sh", "-c", "echo; read end"],
    ], { stdin: "piped", stdout: "piped", stderr: "piped" });
    const stderr = new Response(child.stderr).text();
    const reader = child.stdout.getReader();
    try {
      if ((await reader.read()).done) throw new ToolError(`perf: ${(await stderr).trim()}`);
      await during();
    } finally {
      await child.stdin.close();
      await reader.cancel();
      await child.status;
    }
    const [first] = (await stderr).trim().split("\n").pop()!.split(";");
    // A process that never ran did nothing either.
    const count = first === "<not counted>" ? 0 : Number(first || NaN);
    if (Number.isNaN(count)) throw new ToolError(`perf: ${(await stderr).trim()}`);
    return count;
  }
}

class Strace implements SystemCallCounter {
  readonly about = "counted by strace -c -f, which slows it down, in a short run of its own";
  readonly #program: string;

  constructor(program: string) {
    this.#program = program;
  }

  async count(pid: number, during: () => Promise<void>): Promise<number> {
    const child = spawn(this.#program, ["-c", "-f", "-U", "calls,name", "-p", String(pid)], {
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    });
    const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      text += value ?? "";
      if (done) throw new ToolError(`strace: ${text.trim()}`);
      if (/ attached( with \d+ threads)?\n/.test(text)) break;
    }
    try {
      await during();
    } finally {
      child.kill("SIGINT");
    }
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
    }
    await child.status;
    return Number(text.match(/^\s*(\d+)\s+total$/m)?.[1] ?? 0);
  }
}
