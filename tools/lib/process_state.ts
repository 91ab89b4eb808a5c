/** What this process holds, for tests that nothing is left behind. */

export interface ProcessState {
  fds: number;
  /** Mappings of memory files and spans: what guests' memory is made of. */
  mappings: number;
  threads: number;
}

/** What this process holds now, without what the platform's own thread pool comes and goes with. */
export function processState(): ProcessState {
  return {
    fds: [...Deno.readDirSync("/proc/self/fd")].length,
    mappings: Deno.readTextFileSync("/proc/self/maps").split("\n").filter(isGuestMemory).length,
    threads: [...Deno.readDirSync("/proc/self/task")].filter(({ name }) => !isPooled(name)).length,
  };
}

/** A line of a memory file, or of addresses that a span reserved. */
function isGuestMemory(line: string): boolean {
  const [range, access] = line.split(" ");
  const [start, end] = (range ?? "").split("-").map((address) => parseInt(address, 16));
  return line.includes("memfd:") || (access === "---p" && end - start >= 2 ** 30);
}

function isPooled(thread: string): boolean {
  try {
    return Deno.readTextFileSync(`/proc/self/task/${thread}/comm`).startsWith("tokio-");
  } catch {
    return true; // it ended meanwhile
  }
}

/** Expects that this process holds no more than before. */
export function expectNothingLeft(before: ProcessState, after: ProcessState): void {
  for (const what of ["fds", "mappings", "threads"] as const) {
    if (after[what] <= before[what]) continue;
    const list = what === "fds" ? `: ${descriptors()}` : "";
    throw new Error(`Expected ${before[what]} ${what} afterwards, got ${after[what]}${list}`);
  }
}

function descriptors(): string {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
    try {
      return `${name} ${Deno.readLinkSync(`/proc/self/fd/${name}`)}`;
    } catch {
      return name; // the directory itself
    }
  }).join(", ");
}
