/** Counting a process's system calls, with what the machine has for that. */
import { findProgram, kill, spawn } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";

/** Counts what a process does while `during` runs. */
type Count = (program: string, pid: number, during: () => Promise<void>) => Promise<number>;

export interface SystemCallCounter {
  /** How it counts, for the table's notes. */
  readonly about: string;
  count(pid: number, during: () => Promise<void>): Promise<number>;
}

/** perf's name of every system call's entry. */
const EVENT = "raw_syscalls:sys_enter";

/** The programs that count, the better one first. */
const PROGRAMS: [name: string, count: Count, about: string][] = [
  ["perf", countByPerf, `counted by perf (${EVENT}) in a short run of its own`],
  [
    "strace",
    countByStrace,
    "counted by strace -c -f, which slows it down, in a short run of its own",
  ],
];

/** A counter, if this machine allows one. */
export async function systemCallCounter(): Promise<SystemCallCounter | undefined> {
  for (const [name, count, about] of PROGRAMS) {
    const program = findProgram(name);
    if (program !== undefined && await works(count, program)) {
      return { about, count: (pid, during) => count(program, pid, during) };
    }
  }
  return undefined;
}

async function works(count: Count, program: string): Promise<boolean> {
  const child = spawn("sleep", ["60"], { stdin: "null" });
  try {
    return Number.isFinite(await count(program, child.pid, () => Promise.resolve()));
  } catch (error) {
    if (error instanceof ToolError) return false;
    throw error;
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
}

async function countByPerf(program: string, pid: number, during: () => Promise<void>) {
  // perf counts from before its command starts until that has ended.
  const child = spawn(program, [
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

async function countByStrace(program: string, pid: number, during: () => Promise<void>) {
  const child = spawn(program, ["-c", "-f", "-U", "calls,name", "-p", String(pid)], {
    ...{ stdin: "null", stdout: "null", stderr: "piped" },
  });
  const attached = Promise.withResolvers<void>();
  let text = "";
  const reading = (async () => {
    for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (/ attached( with \d+ threads)?\n/.test(text)) attached.resolve();
    }
    attached.reject(new ToolError(`strace: ${text.trim()}`));
  })();
  try {
    await attached.promise;
    await during();
  } finally {
    kill(child, "SIGINT");
  }
  await reading;
  await child.status;
  return Number(text.match(/^\s*(\d+)\s+total$/m)?.[1] ?? 0);
}
