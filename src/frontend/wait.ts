import { watch } from "../linux/mod.ts";

/** How long the front-end waits for anything, unless it is told otherwise. Busy machines took 5 s. */
export const DEFAULT_TIMEOUT_MS = 30_000;

/**
 * Waits until a descriptor is readable (or hung up), without blocking the event loop. The
 * descriptor stays the caller's and open meanwhile.
 *
 * @param fd The descriptor
 * @param timeoutMs How long at the most
 * @returns Whether it became readable in time
 */
export function readable(fd: number, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (result: boolean) => {
      clearTimeout(timer);
      once[Symbol.dispose]();
      resolve(result);
    };
    const once = watch(fd, "readable", () => end(true));
    const timer = setTimeout(() => end(false), timeoutMs);
  });
}
