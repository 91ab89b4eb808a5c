/**
 * Addresses to listen to over TCP.
 *
 * @module
 */

import { UsageError } from "./usage_error.ts";

/** An address and a port. */
export interface ListenAddress {
  hostname: string;
  port: number;
}

/** @throws {UsageError} When it is no address with a port. */
export function listenAddress(text: string): ListenAddress {
  const [, ipv6, other, port] = /^(?:\[([\da-f:.]+)\]|([^:]+)):(\d{1,5})$/i.exec(text) ?? [];
  const hostname = ipv6 ?? other;
  if (hostname === undefined || Number(port) > 65535) {
    throw new UsageError(
      `Expected an address and a port as --listen, such as 127.0.0.1:8420, got ${text}`,
    );
  }
  return { hostname, port: Number(port) };
}

/** The error for an address that cannot be listened to; `cause` itself if it is another. */
export function listenFailure(listen: string, cause: unknown): unknown {
  const reason = {
    AddrInUse: "it is in use",
    AddrNotAvailable: "this machine does not have it",
    PermissionDenied: "that is not permitted",
  }[(cause as Error).name];
  if (reason === undefined) return cause;
  return new Error(`Cannot listen on ${listen}: ${reason}; give another --listen`, { cause });
}
