/**
 * Users and groups, by their names.
 *
 * @module
 */

import { cString, libc } from "./libc.ts";

// struct passwd: pw_name, pw_passwd, pw_uid, …; struct group: gr_name, gr_passwd, gr_gid, …
const ID_OFFSET = 16;

function idOf(entry: Deno.PointerValue): number | undefined {
  return entry === null ? undefined : new Deno.UnsafePointerView(entry).getUint32(ID_OFFSET);
}

/** The number of a user; undefined when no user has that name. */
export function userId(name: string): number | undefined {
  return idOf(libc.getpwnam(cString(name)));
}

/** The number of a group; undefined when none has that name. */
export function groupId(name: string): number | undefined {
  return idOf(libc.getgrnam(cString(name)));
}
