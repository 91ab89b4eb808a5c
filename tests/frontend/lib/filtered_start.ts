/**
 * Becomes another program under a filter of system calls, as systemd would start it:
 *
 *     deno run --allow-all filtered_start.ts CALLS ACTION PROGRAM ARGUMENTS…
 *
 * CALLS are the names that may be called, joined by commas; any other call fails
 * with EPERM (ACTION `fail`), or ends the program (`kill`).
 *
 * @module
 */

const NAME = "libseccomp.so.2"; // a dependency of apt, so every Debian has it
const EPERM = 1;
const ALLOW = 0x7fff_0000, FAIL = 0x0005_0000 | EPERM, KILL = 0x8000_0000; // seccomp.h
const SYNCHRONISE_THREADS = 4; // SCMP_FLTATR_CTL_TSYNC

const seccomp = Deno.dlopen(NAME, {
  seccomp_init: { parameters: ["u32"], result: "pointer" },
  seccomp_attr_set: { parameters: ["pointer", "u32", "u32"], result: "i32" },
  seccomp_syscall_resolve_name: { parameters: ["buffer"], result: "i32" },
  seccomp_rule_add_array: {
    parameters: ["pointer", "u32", "i32", "u32", "pointer"],
    result: "i32",
  },
  seccomp_load: { parameters: ["pointer"], result: "i32" },
}).symbols;
const libc = Deno.dlopen("libc.so.6", {
  execvp: { parameters: ["buffer", "buffer"], result: "i32" },
}).symbols;

function text(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${value}\0`);
}

const [calls, action, ...command] = Deno.args;
const filter = seccomp.seccomp_init(action === "kill" ? KILL : FAIL);
expect(seccomp.seccomp_attr_set(filter, SYNCHRONISE_THREADS, 1), "seccomp_attr_set");
for (const name of calls.split(",")) {
  const number = seccomp.seccomp_syscall_resolve_name(text(name));
  // Sets include calls of other architectures too.
  if (number < 0) continue;
  expect(seccomp.seccomp_rule_add_array(filter, ALLOW, number, 0, null), name);
}
expect(seccomp.seccomp_load(filter), "seccomp_load");

const words = command.map(text);
const pointers = new BigUint64Array(512); // large enough not to be moved
words.forEach((word, i) => {
  pointers[i] = Deno.UnsafePointer.value(Deno.UnsafePointer.of(word));
});
libc.execvp(words[0], pointers);
throw new Error(`Cannot become ${command[0]}`);

function expect(result: number, what: string): void {
  if (result !== 0) throw new Error(`${what}: ${result}`);
}
