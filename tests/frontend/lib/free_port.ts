/**
 * Ports for servers that cannot choose one.
 *
 * @module
 */

/** Below the ports that Linux gives to whoever names none (`ip_local_port_range`). */
const FIRST = 10_000, COUNT = 20_000;

/** A TCP port at 127.0.0.1 that nobody uses, and that nobody else gets by chance. */
export function freePort(): number {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT);
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
