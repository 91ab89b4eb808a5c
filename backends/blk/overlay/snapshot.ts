/**
 * Snapshots of a running disk: it continues in a new overlay, and its earlier content is only read
 * from then on.
 *
 * @module
 */

import { removeName } from "../../../src/linux/mod.ts";
import type { BlkOptions } from "../options.ts";
import type { OpenOverlayStore, OverlayHandle, StoreControl } from "../store.ts";
import { createDelta } from "./delta_file.ts";
import { factsOf, layOverlay, MOST_OVERLAYS } from "./open_overlay.ts";

/** The steps of a snapshot for the threads of a disk, in this order. */
export type SnapshotStep =
  /** Take no requests. */
  | { readonly snapshot: "pause" }
  /** Attach to the overlay. */
  | { readonly snapshot: "prepare"; readonly handle: OverlayHandle }
  /** Use it. */
  | { readonly snapshot: "lay" }
  /** Take requests again. */
  | { readonly snapshot: "resume" };

/** A disk that runs. */
export interface RunningDisk {
  store: StoreControl;
  /** What the person named it. */
  name: string;
  options: BlkOptions;
  log(message: string): void;
  /** Tells its threads something, and prints what fails. */
  post(message: SnapshotStep | "flush"): Promise<unknown>;
  /** Waits for what is in flight. */
  fence(): Promise<void>;
  /** Whether a flush has failed. */
  hasLost(): boolean;
}

/** The path that the body of a `snapshot` command names. */
export function overlayOf(body: unknown): string {
  const { overlay, ...others } = Object(body) as { overlay?: unknown };
  const [unknown] = Object.keys(others);
  if (typeof overlay === "string" && overlay !== "" && unknown === undefined) return overlay;
  throw new TypeError(
    `Expected {"overlay": "PATH"}, the file for what is written from now on, got ${
      JSON.stringify(body)
    }`,
  );
}

/**
 * Moves a running disk to a new overlay.
 *
 * @returns The overlay, which ends before the store below it.
 * @throws {Error} When it fails; the disk then runs as before.
 */
export async function takeSnapshot(disk: RunningDisk, path: string): Promise<OpenOverlayStore> {
  const { store, options, log, post } = disk;
  if (store.abilities.readOnly || !store.abilities.durable) {
    throw new TypeError("Expected a disk that is written, and outlives this process");
  }
  if (overlaysOf(store) >= MOST_OVERLAYS) {
    throw new TypeError(`Expected less than ${MOST_OVERLAYS} overlays on each other`);
  }
  await using opened = new AsyncDisposableStack();
  try {
    await post({ snapshot: "pause" });
    await disk.fence();
    await post("flush");
    if (disk.hasLost()) throw new Error("What was written cannot be made durable");
    const facts = factsOf(store, disk.name);
    createDelta(path, facts);
    opened.defer(() => removeName(path));
    const how = { ...options, readOnly: false };
    const made = opened.use(
      layOverlay({ path, options: how, log, base: store, facts }, new AsyncDisposableStack()),
    );
    await post({ snapshot: "prepare", handle: made.handle });
    // A thread that does not answer in time lays it later: from here on it stays
    opened.move();
    await post({ snapshot: "lay" }).catch(() => {});
    return made;
  } finally {
    await post({ snapshot: "resume" }).catch(() => {});
  }
}

/** How many overlays a store has on each other. */
function overlaysOf({ handle }: StoreControl): number {
  let count = 0;
  for (let at = handle; at.kind === "overlay"; at = at.base) count++;
  return count;
}
