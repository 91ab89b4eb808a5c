/**
 * Ports for servers that cannot choose one.
 *
 * @module
 */

/** A TCP port at 127.0.0.1 that nobody uses. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}
