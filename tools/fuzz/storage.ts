/** Storage that fails, in every way that there is. */
import { type FuzzTarget, playParts } from "./frame.ts";
import { liveWithFaults } from "./storage/faulty.ts";
import { liveWithTrouble } from "./storage/files.ts";

export const target: FuzzTarget = {
  about: "stores that fail with every errno, late or not; files that are full, short or no disks",
  run: (run) => playParts("Disk", [liveWithFaults, liveWithTrouble, liveWithTrouble], run),
};
