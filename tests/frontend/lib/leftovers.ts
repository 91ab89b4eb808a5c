/**
 * Finds processes that a command left behind.
 *
 * @module
 */

/** The command lines of all processes that name something, such as a test's own directory. */
export function commandsThatName(text: string): string[] {
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
