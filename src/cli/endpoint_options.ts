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
    about: "Connect to a Unix socket on which QEMU listens, and again when QEMU is gone; " +
      "tries again after 20 ms, then later and later, up to a second",
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
    about:
      "The permissions of the socket at --socket-path, such as 660; by default what the umask " +
      "leaves of 777. Who may write to it may connect",
  },
  socketOwner: {
    type: "text",
    placeholder: "USER[:GROUP]",
    about:
      "The user and group of the socket at --socket-path, as names or numbers; :GROUP leaves " +
      "the user",
  },
} as const satisfies Options;
