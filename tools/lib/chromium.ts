/**
 * Debian's Chromium, unpacked but not installed, driven over the DevTools protocol.
 *
 * @module
 */
import { type Browser, chromium } from "playwright-core";
import { debianRelease, unpackPackages } from "../guest/apt.ts";
import { cached } from "../guest/cache.ts";
import { progress } from "../guest/progress.ts";

/** With fonts, and nothing that it talks to by itself. */
const PACKAGES = ["chromium", "fonts-dejavu-core"];

const ARGS = [
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-gpu",
  "--disable-quic",
  "--disable-sync",
  "--no-first-run",
];

/** The directory of Chromium's files; installed packages are not in it. */
export async function chromiumPackages(): Promise<string> {
  return await cached(
    "chromium",
    JSON.stringify([PACKAGES, await debianRelease()]),
    async (path) => {
      progress("downloading Chromium and what it needs");
      await unpackPackages(PACKAGES, path, { withDependencies: true });
    },
  );
}

/** Starts Chromium without a window. */
export async function startChromium(): Promise<Browser> {
  const directory = await chromiumPackages();
  const libraries = `${directory}/usr/lib/x86_64-linux-gnu`;
  return await chromium.launch({
    executablePath: `${directory}/usr/lib/chromium/chromium`,
    args: ARGS,
    chromiumSandbox: false,
    env: {
      LD_LIBRARY_PATH: `${libraries}:${libraries}/pulseaudio:${directory}/lib/x86_64-linux-gnu`,
      XDG_DATA_HOME: `${directory}/usr/share`,
      HOME: Deno.env.get("HOME") ?? "/",
    },
  });
}
