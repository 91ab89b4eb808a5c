/**
 * Finds processes that a command left behind.
 *
 * @module
 */
import { assertEquals } from "@std/assert";

/** How long processes may take to end after the one that started them, in milliseconds. */
const ENDING_MS = 30_000;

/**
 * Expects that no process names something, such as a test's own directory. The kernel ends the
 * processes of one that has exited a moment later.
 */
export async function expectNoCommandNames(text: string): Promise<void> {
  const end = performance.now() + ENDING_MS;
  while (commandsThatName(text).length > 0 && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(commandsThatName(text), []);
}

/** The command lines of all processes that name something. */
function commandsThatName(text: string): string[] {
  return [...Deno.readDirSync("/proc")].flatMap(({ name }) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const words = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ");
      return words.includes(text) ? [words] : [];
    } catch {
      return []; // It has ended.
    }
  });
}
