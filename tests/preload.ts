/**
 * Looks every function of libc up before a test runs: Deno's sanitizer of
 * resources takes what a test looks up first for something it forgot to close.
 *
 *     deno test --allow-all --sanitize-resources --preload=tests/preload.ts tests/…
 */
import { libc } from "../src/linux/libc.ts";

for (const name in libc) void libc[name as keyof typeof libc];
