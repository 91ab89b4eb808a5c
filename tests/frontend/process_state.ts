/**
 * What this process holds, for tests that nothing is left behind.
 *
 * @module
 */

/** Counts of what a process holds. */
export interface ProcessState {
  fds: number;
  /** Mappings of memory files and spans: what guests' memory is made of. */
  mappings: number;
  threads: number;
}

/** What this process holds now. */
export function processState(): ProcessState {
  const maps = Deno.readTextFileSync("/proc/self/maps").split("\n");
  return {
    fds: [...Deno.readDirSync("/proc/self/fd")].length,
    mappings: maps.filter((line) => line.includes("memfd:") || line.includes("---p")).length,
    threads: [...Deno.readDirSync("/proc/self/task")].length,
  };
}
