/**
 * The version of vhostd.
 *
 * @module
 */

/** The version, as deno.json has it. */
export async function version(): Promise<string> {
  const { default: { version } } = await import("../../deno.json", { with: { type: "json" } });
  return version;
}
