/**
 * Loop devices and mounts for tests, which take root; everything is undone at
 * the end of the block.
 *
 * @module
 */

/** Runs a command; its output. */
export function run(command: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(command, { args }).outputSync();
  const text = new TextDecoder();
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${text.decode(stderr)}`);
  return text.decode(stdout).trim();
}

/** Repeats what fails while the kernel still has it: an io_uring lets go of its files a while after its end. */
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

/** Whether loop devices and mounts can be had; says so where not. */
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

/** A loop device over a file. */
export function loopDevice(file: string, ...flags: string[]): Disposable & { path: string } {
  const path = run("losetup", "--find", "--show", ...flags, file);
  return { path, [Symbol.dispose]: () => undo("losetup", "--detach", path) };
}
