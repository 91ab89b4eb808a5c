/** A guest whose console is the user's terminal. */
import { toText } from "./console.ts";
import { PROMPT } from "./guest.ts";
import { spawn, writeAll } from "../lib/process.ts";

/** Ctrl-D, by which a terminal says that nothing more will be typed. */
const END_OF_TEXT = new Uint8Array([4]);

/** Runs QEMU with the guest's console on stdin and stdout; returns how QEMU ended. */
export function runOnTerminal(
  qemu: string,
  args: string[],
  signal: AbortSignal,
): Promise<Deno.CommandStatus> {
  return Deno.stdin.isTerminal()
    ? runInteractively(qemu, args, signal)
    : runOnPipe(qemu, args, signal);
}

/** QEMU's arguments for the guest's console on a terminal. */
export const TERMINAL_ARGUMENTS = [
  ...["-chardev", "stdio,id=console,mux=on,signal=off"],
  ...["-serial", "chardev:console", "-mon", "chardev=console"],
];

async function runInteractively(
  program: string,
  args: string[],
  signal: AbortSignal,
): Promise<Deno.CommandStatus> {
  const settings = await stty("-g");
  const qemu = spawn(program, [...args, ...TERMINAL_ARGUMENTS], { signal });
  const status = await qemu.status;
  // QEMU does this too, but not when it was killed.
  await stty(settings.trim());
  return status;
}

async function stty(argument: string): Promise<string> {
  const { stdout } = await new Deno.Command("stty", {
    args: [argument],
    stdin: "inherit",
    stderr: "null",
  }).output();
  return new TextDecoder().decode(stdout);
}

/**
 * What comes through a pipe is typed, and when it ends the shell is told so at its prompt, which
 * powers our own guest off. A Ctrl-D that is typed while a command runs would be lost.
 */
async function runOnPipe(
  program: string,
  args: string[],
  signal: AbortSignal,
): Promise<Deno.CommandStatus> {
  const qemu = spawn(program, [
    ...args,
    ...["-chardev", "stdio,id=console,signal=off"],
    ...["-serial", "chardev:console"],
  ], { stdin: "piped", stdout: "piped", signal });
  const console = qemu.stdin.getWriter();

  let tail = "";
  let ended = false;
  let typing: Promise<void> | undefined;
  async function sayEnd() {
    if (ended && PROMPT.test(tail)) await console.write(END_OF_TEXT);
  }
  async function type() {
    for await (const chunk of Deno.stdin.readable) await console.write(chunk);
    ended = true;
    await sayEnd();
  }

  for await (const chunk of qemu.stdout) {
    await writeAll(Deno.stdout, chunk);
    tail = (tail + toText(chunk)).slice(-80);
    if (!PROMPT.test(tail)) continue;
    // QEMU may end while something is being typed.
    typing ??= type().catch(() => {});
    await sayEnd();
  }
  return await qemu.status;
}
