/**
 * Loop devices and mounts for tests, which need root. The end of the block removes them.
 *
 * @module
 */

/** Runs a command; returns its output. */
export function run(command: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(command, { args }).outputSync();
  const text = new TextDecoder();
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${text.decode(stderr)}`);
  return text.decode(stdout).trim();
}

/** Retries a command that fails while a closed io_uring still holds its files. */
function undo(command: string, ...args: string[]): void {
  for (let left = 200;; left--) {
    try {
      return void run(command, ...args);
    } catch (error) {
      if (left === 0) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
  }
}

/** Whether loop devices and mounts are available; prints a line if not. */
export function canMount(): boolean {
  try {
    run("losetup", "--find");
    return Deno.uid() === 0;
  } catch {
    console.log("skipped: it needs root, and the loop driver");
    return false;
  }
}

/** A directory with a file system. */
export function mounted(...args: string[]): Disposable & { path: string } {
  const path = Deno.makeTempDirSync({ prefix: "vhostd-mount-" });
  try {
    run("mount", ...args, path);
  } catch (error) {
    Deno.removeSync(path);
    throw error;
  }
  return {
    path,
    [Symbol.dispose]() {
      undo("umount", path);
      Deno.removeSync(path);
    },
  };
}

/** A directory with a file system in memory that is full at `size`, such as `1m`. */
export function smallTmpfs(size: string): Disposable & { path: string } {
  return mounted("-t", "tmpfs", "-o", `size=${size}`, "tmpfs");
}

/** A loop device over a file. */
export function loopDevice(file: string, ...flags: string[]): Disposable & { path: string } {
  const path = run("losetup", "--find", "--show", ...flags, file);
  return { path, [Symbol.dispose]: () => undo("losetup", "--detach", path) };
}
