/**
 * Looks up every libc function before a test runs: Deno's resource sanitizer reports a first look-up
 * inside a test as a leak.
 *
 *     deno test --allow-all --sanitize-resources --preload=tests/preload.ts tests/…
 */
import { libc } from "../src/linux/libc.ts";

for (const name in libc) void libc[name as keyof typeof libc];
