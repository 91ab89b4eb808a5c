/**
 * The flags that say where front-ends come from.
 *
 * @module
 */

import type { Options } from "../virtio/mod.ts";

/** The flags that say where front-ends come from. */
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
