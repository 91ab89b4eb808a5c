/** Directories that go when the command ends, however it does. */
import { findProgram, run } from "./process.ts";

/** The signals that end a command, and their numbers. */
export const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

export class Scratch implements Disposable {
  static readonly #all = new Set<Scratch>();
  readonly #made = new Set<string>();
  readonly #undo: (() => void)[] = [];

  /** @param prefix How the directories' names begin, such as `vhostd-bench-` */
  constructor(readonly prefix: string) {
    Scratch.#all.add(this);
  }

  /** Removes the files of all. */
  static removeAll(): void {
    for (const scratch of Scratch.#all) scratch[Symbol.dispose]();
  }

  /** Adds what to do before everything is removed, such as an unmount. */
  defer(undo: () => void): void {
    this.#undo.push(undo);
  }

  /** Makes a directory in another one: that of temporary files by default. */
  directory(parent: string = Deno.env.get("TMPDIR") ?? "/tmp"): string {
    const path = Deno.makeTempDirSync({ dir: parent, prefix: this.prefix });
    this.#made.add(path);
    return path;
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
    for (const path of this.#made) {
      try {
        Deno.removeSync(path, { recursive: true });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    this.#made.clear();
    Scratch.#all.delete(this);
  }
}

/**
 * Makes signals end the command, with nothing left of its {@linkcode Scratch}. With `gently`, the
 * first one only calls that, with the status to exit with.
 */
export function endOnSignals(gently?: (signal: string, status: number) => void): void {
  let isFirst = gently !== undefined;
  for (const [name, number] of Object.entries(SIGNALS)) {
    Deno.addSignalListener(name as Deno.Signal, () => {
      const status = 128 + number;
      if (isFirst) {
        isFirst = false;
        return gently!(name, status);
      }
      try {
        Scratch.removeAll();
      } finally {
        Deno.exit(status);
      }
    });
  }
}

/** Mounts a tmpfs on a directory; returns what unmounts it; nothing where that is not allowed. */
export async function mountTmpfs(path: string, bytes: number): Promise<(() => void) | undefined> {
  const [mount, umount] = [findProgram("mount"), findProgram("umount")];
  if (mount === undefined || umount === undefined) return undefined;
  try {
    await run(mount, ["-t", "tmpfs", "-o", `size=${bytes}`, "vhostd", path]);
  } catch {
    return undefined;
  }
  // Lazily: what still has a file open there is about to end.
  return () => void new Deno.Command(umount, { args: ["-l", path] }).outputSync();
}
