/**
 * Names of Ceph disks, as QEMU writes them (its `block/rbd.c`).
 *
 * @module
 */

import { OptionError } from "../../../mod.ts";

/** A disk in a Ceph cluster. */
export interface RbdName {
  readonly pool: string;
  /** The namespace in the pool; empty for the default one. */
  readonly namespace: string;
  readonly image: string;
  readonly snapshot?: string;
  /** The user, without `client.`. @default {"admin"} */
  readonly id?: string;
  /** The path of the cluster's configuration. @default where librados looks for it */
  readonly conf?: string;
  /** Settings of Ceph, in their order. */
  readonly settings: readonly (readonly [name: string, value: string])[];
}

const SHAPE = "rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:NAME=VALUE…]";

/**
 * Reads a name: `rbd:pool/[namespace/]image[@snapshot][:id=…][:conf=…][:setting=value…]`. A backslash
 * makes the next character an ordinary one.
 *
 * @throws {OptionError} When it is none.
 */
export function parseRbdName(name: string): RbdName {
  const fail = (why: string): never => {
    throw new OptionError(`Expected ${SHAPE}, got ${why}`);
  };
  const [path, ...words] = split(name.replace(/^rbd:/, ""), ":");
  const [place, ...snapshots] = split(path, "@");
  const places = split(place, "/").map(unescaped);
  const [pool, image] = [places[0], places.at(-1)!];
  if (places.length < 2 || places.length > 3 || places.includes("")) fail(name);
  if (snapshots.length > 1 || snapshots[0] === "") fail(name);
  let id: string | undefined, conf: string | undefined;
  const settings: [string, string][] = [];
  for (const word of words) {
    const [key, ...values] = split(word, "=");
    if (key === "" || values.length === 0) fail(`${JSON.stringify(word)}, which has no value`);
    const setting = unescaped(key), value = unescaped(values.join("="));
    if (value.includes("\0")) fail(`a ${setting} with a NUL`);
    if (setting === "id") id = value;
    else if (setting === "conf") conf = value;
    else if (setting === "key") {
      fail("a key, which everybody on this machine can read; use keyring=");
    } else settings.push([setting, value]);
  }
  const snapshot = snapshots.map(unescaped)[0];
  return {
    pool,
    namespace: places.length === 3 ? places[1] : "",
    image,
    snapshot,
    id,
    conf,
    settings,
  };
}

/** The parts of a text between separators that no backslash escapes, still with their backslashes. */
function split(text: string, separator: string): string[] {
  const parts = [""];
  for (const [token] of text.matchAll(/\\.|[^]/gs)) {
    if (token === separator) parts.push("");
    else parts[parts.length - 1] += token;
  }
  return parts;
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(.)/gs, "$1");
}
