/**
 * Listens on a path: the rules for socket files that exist already.
 *
 * @module
 */

import { Errno, LinuxError } from "../errors.ts";
import { SocketFile } from "../file/path.ts";
import { UnixConnection } from "./connection.ts";
import { MAX_SOCKET_PATH_BYTES } from "./unix_socket.ts";

/** The error of an endpoint that cannot be used. */
export class EndpointError extends Error {
  /** The name of the class. */
  override name = "EndpointError";
}

/**
 * Listens on a path by `listen`. Replaces a socket file without a listener; leaves any other file
 * alone.
 *
 * @throws {EndpointError} When it cannot listen there.
 * @throws {Deno.errors.NotCapable} When Deno lacks the permission.
 */
export function listenOnPath<T>(path: string, listen: (path: string) => T): T {
  expectSocketPath(path);
  try {
    return listen(path);
  } catch (error) {
    if (!isInUse(error)) throw cannotListen(path, error);
  }
  removeStaleSocket(path);
  try {
    return listen(path);
  } catch (error) {
    throw cannotListen(path, error);
  }
}

/**
 * Checks the path of a socket.
 *
 * @throws {EndpointError} When it is empty or too long, or has a zero byte.
 */
export function expectSocketPath(path: string): void {
  const bytes = new TextEncoder().encode(path).length;
  if (bytes < 1 || bytes > MAX_SOCKET_PATH_BYTES) {
    throw new EndpointError(
      `Expected a socket path of 1 to ${MAX_SOCKET_PATH_BYTES} bytes, got ${bytes}: ${path}`,
    );
  }
  if (path.includes("\0")) {
    throw new EndpointError(`Expected a socket path without zero bytes: ${JSON.stringify(path)}`);
  }
}

function isInUse(error: unknown): boolean {
  return error instanceof Deno.errors.AddrInUse || errnoOf(error) === Errno.EADDRINUSE;
}

/** Removes a socket file without a listener. */
function removeStaleSocket(path: string): void {
  using file = existingSocket(path);
  if (file === undefined) return;
  try {
    UnixConnection.connect(path)[Symbol.dispose]();
  } catch (error) {
    if (errnoOf(error) === Errno.ECONNREFUSED) return file.remove();
    if (errnoOf(error) === Errno.ENOENT) return;
    // EAGAIN: the backlog of a living listener is full.
    if (errnoOf(error) !== Errno.EAGAIN) throw cannotListen(path, error);
  }
  throw new EndpointError(
    `Cannot listen on ${path}: another server is listening there; stop it or name another path`,
  );
}

/** The socket file at a path; undefined if it is gone. */
function existingSocket(path: string): SocketFile | undefined {
  try {
    return new SocketFile(path);
  } catch (error) {
    if (errnoOf(error) === Errno.ENOENT) return undefined;
    if (!(error instanceof TypeError)) throw cannotListen(path, error);
    throw new EndpointError(
      `Cannot listen on ${path}: it exists and is not a socket; remove it or name another path`,
    );
  }
}

function cannotListen(path: string, cause: unknown): Error {
  if (cause instanceof Deno.errors.NotCapable) return cause;
  const errno = errnoOf(cause);
  let reason = cause instanceof Error ? cause.message : String(cause);
  if (errno === Errno.ENOENT || cause instanceof Deno.errors.NotFound) {
    reason = "its directory does not exist; make it or name another path";
  } else if (errno === Errno.EACCES || cause instanceof Deno.errors.PermissionDenied) {
    reason = "no permission to write to its directory; name another path";
  } else if (errno === Errno.EPERM) {
    reason = "no permission to give the socket to another user or group; run as root, or as a " +
      "member of the group";
  } else if (errno === Errno.EROFS) {
    reason = "its file system is read-only; name another path";
  }
  return new EndpointError(`Cannot listen on ${path}: ${reason}`, { cause });
}

function errnoOf(error: unknown): number | undefined {
  return error instanceof LinuxError ? error.errno : undefined;
}
