/**
 * Does before a test runs what would disturb the first one.
 *
 * - Looks every function of libc up: Deno's sanitizer of resources takes what a
 *   test looks up first for something it forgot to close.
 * - Starts a queue thread: where its modules have changed, Deno checks their
 *   types first, and all of the process stands still for as many seconds as a
 *   front-end waits for an answer.
 *
 *     deno test --allow-all --sanitize-resources --preload=tests/preload.ts tests/…
 */
import { libc } from "../src/linux/libc.ts";

for (const name in libc) void libc[name as keyof typeof libc];

const thread = new Worker(new URL("../src/runtime/queue_thread.ts", import.meta.url), {
  type: "module",
});
await new Promise((resolve) => {
  thread.onmessage = resolve; // It says that this is no device.
  thread.onerror = resolve;
  thread.postMessage({});
});
thread.terminate();
