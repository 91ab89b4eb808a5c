/**
 * Files that this process makes while it starts: a start that is refused leaves none of them.
 *
 * @module
 */

import { LinuxError } from "../errors.ts";
import { fileStat, openFile } from "./file.ts";
import { isLockedElsewhere } from "./file_lock.ts";
import { cString, libc } from "../libc.ts";

/** The identity of each file by its path; undefined where new files are kept. */
let made: Map<string, string> | undefined;

/** Notes files that are made from now on. */
export function noteNewFiles(): void {
  made = new Map();
}

/** A file was made: while this process starts, a refusal removes it. */
export function noteNewFile(path: string, fd: number): void {
  made?.set(path, fileStat(fd).identity);
}

/** The start has succeeded: keeps the files that it made, and notes no more. */
export function keepNewFiles(): void {
  made = undefined;
}

/** The start was refused: removes the files that it made, and notes no more. */
export function removeNewFiles(): void {
  for (const [path, identity] of made ?? []) {
    try {
      using file = openFile(path, { nonblocking: true });
      const isOurs = fileStat(file.number).identity === identity;
      // Another process may use it by now
      if (isOurs && !isLockedElsewhere(file.number, 0, 0)) libc.unlink(cString(path));
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error; // else it is gone
    }
  }
  made = undefined;
}
