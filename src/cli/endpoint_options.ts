/**
 * The flags of the endpoint.
 *
 * @module
 */

import type { Options } from "../virtio/mod.ts";

/** The flags of the endpoint itself. */
export const endpointOptions = {
  socketPath: {
    type: "text",
    placeholder: "PATH",
    about: "Listen on a Unix socket; a stale socket file is replaced",
  },
  connect: {
    type: "text",
    placeholder: "PATH",
    about: "Connect to a Unix socket on which QEMU listens, and reconnect when QEMU is gone; " +
      "retries after 20 ms, then after pauses that grow to a second",
  },
  fd: {
    type: "number",
    placeholder: "N",
    most: 2 ** 31 - 1,
    about: "Use the inherited Unix socket N instead, listening or connected",
  },
} as const satisfies Options;

/** The flags that control who may connect to `--socket-path`. */
export const accessOptions = {
  socketMode: {
    type: "text",
    placeholder: "OCTAL",
    about: "The permissions of the socket at --socket-path, such as 660; by default " +
      "777 less the umask. Connecting needs permission to write",
  },
  socketOwner: {
    type: "text",
    placeholder: "USER[:GROUP]",
    about:
      "The user and group of the socket at --socket-path, as names or numbers; :GROUP leaves " +
      "the user",
  },
} as const satisfies Options;
