/**
 * The devices of this project by name, each loaded only when it is used.
 *
 * @module
 */

/** Commands that belong to a device, by name. */
export const commands = {
  overlay: () => import("./blk/overlay/command.ts"),
};

/** The devices that `vhostd` knows by name. */
export const devices = {
  blk: () => import("./blk/mod.ts"),
  input: () => import("./input/mod.ts"),
  net: () => import("./net/mod.ts"),
  rng: () => import("./rng/mod.ts"),
  sensor: () => import("./sensor/mod.ts"),
  switch: () => import("./net/switch/mod.ts"),
};
