/**
 * Directories that go when the command ends.
 *
 * @module
 */

/** Makes directories, and removes them. */
export class Scratch implements Disposable {
  readonly #made = new Set<string>();
  readonly #prefix: string;

  /** @param prefix How the directories' names begin, such as `vhostd-bench-` */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Makes a directory in another one. */
  directory(parent: string): string {
    const path = Deno.makeTempDirSync({ dir: parent, prefix: this.#prefix });
    this.#made.add(path);
    return path;
  }

  /** Removes everything. */
  [Symbol.dispose](): void {
    for (const path of this.#made) {
      try {
        Deno.removeSync(path, { recursive: true });
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    this.#made.clear();
  }
}
