/** Files of this machine for a guest's `/root`: they come in a second archive of its initramfs. */
import { busybox } from "./file_tree.ts";
import { bootFiles, type GuestOptions } from "./guest.ts";

/** Files to give to a guest. */
export interface GivenFiles {
  /** Paths of files and folders. */
  from: string[];
  /** The directory to make the initramfs in. */
  directory: string;
}

/** The path of the initramfs that has the files. */
export function initrdWith({ directory }: GivenFiles): string {
  return `${directory}/initrd`;
}

/** The words of the command that makes that initramfs. */
export async function filesCommand(files: GivenFiles, guest: GuestOptions): Promise<string[]> {
  const { initrd } = await bootFiles({ ...guest, initrd: undefined });
  return ["sh", "-ec", SCRIPT, await busybox(), initrd!, files.directory, ...files.from];
}

/** What fits into the small root disk beside the system, in KiB. */
const MOST_KIB = 64 * 1024;

const SCRIPT =
  'initrd=$1 to=$2; shift 2; mkdir "$to/files"; cp -RL -- "$@" "$to/files"; cd "$to"; ' +
  `[ "$(du -sk files | cut -f1)" -le ${MOST_KIB} ] || ` +
  '{ echo "--file takes up to 64 MiB, got $(du -sh files | cut -f1)" >&2; exit 1; }; ' +
  '{ cat "$initrd"; find files | "$0" cpio -o -H newc -R 0:0 2>/dev/null; } >initrd';
