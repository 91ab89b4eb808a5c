/**
 * Finds the control sockets of devices, and posts to them what was traced.
 *
 * @module
 */

import { requestControl } from "../../runtime/control_request.ts";
import {
  any,
  type Check,
  list,
  members,
  number,
  optional,
  orNull,
  text,
} from "../../runtime/shape.ts";
import type { TraceBatch } from "../../runtime/driver_trace.ts";
import { textOf } from "../../web/lines.ts";
import { UsageError } from "../usage_error.ts";

/** The most sockets of a directory that are looked at. */
const MAX_SOCKETS = 256;

/** The most devices behind a socket. */
const MAX_INSTANCES = 64;

/** The longest answer of a control socket: many times the record of any device. */
const MAX_ANSWER_BYTES = 2 ** 26;

/** Time that a control socket may take to answer. */
const ANSWER_MS = 5000;

/** The names of control sockets in a directory: others may be those of front-ends. */
const CONTROL_NAME = /\.ctl$/;

/** A device, or an instance of one, behind a control socket. */
export interface ServedDevice {
  /** Its name in messages. */
  name: string;
  /** The path of the socket for front-ends; undefined for one that was inherited. */
  socketPath?: string;
  /** The process of its front-end. */
  frontendPid?: number;
  /**
   * Posts a batch.
   *
   * @throws {Error} When it is refused, or the server is gone.
   */
  post(batch: TraceBatch): Promise<void>;
}

/**
 * Finds the devices behind control sockets.
 *
 * @param given Paths of control sockets; each must answer.
 * @param directories Paths of directories; sockets in them count that are named `*.ctl` and answer.
 */
export async function findServed(
  given: readonly string[],
  directories: readonly string[],
): Promise<ServedDevice[]> {
  const found: ServedDevice[] = [];
  for (const path of given) found.push(...await devicesOf(path));
  for (const directory of directories) {
    const sockets = socketsIn(directory).filter((path) => !given.includes(path));
    for (const path of sockets) found.push(...await devicesOf(path).catch(() => []));
  }
  return found;
}

/** What is looked at of an answer to `GET /`. */
interface Served {
  device: { name: string };
  socketPath?: string;
  instances?: string[];
}

const checkServed = members<Served>({
  device: members({ name: text }),
  socketPath: optional(text),
  instances: optional(list(text)),
});

/** What is looked at of a record. */
interface Connected {
  connections: { latest: { frontend: { pid: number } | null }[] };
}

const checkConnected = members<Connected>({
  connections: members({
    latest: list(members({ frontend: orNull(members({ pid: number })) })),
  }),
});

async function devicesOf(path: string): Promise<ServedDevice[]> {
  const ask = <T>(target: string, check: Check<T>) => askControl(path, target, check);
  const { instances = [""] } = await ask("", checkServed);
  if (instances.length > MAX_INSTANCES) {
    throw new RangeError(`Expected at most ${MAX_INSTANCES} devices at ${path}`);
  }
  return await Promise.all(instances.map(async (instance): Promise<ServedDevice> => {
    const prefix = instance === "" ? "" : `${encodeURIComponent(instance)}/`;
    const { socketPath, device } = await ask(prefix, checkServed);
    const { connections } = await ask(`${prefix}record`, checkConnected);
    return {
      name: instance === "" ? device.name : `${device.name}/${instance}`,
      socketPath,
      frontendPid: connections.latest.at(-1)?.frontend?.pid,
      post: async (batch) => void await askControl(path, `${prefix}traced`, any, batch),
    };
  }));
}

async function askControl<T>(
  path: string,
  target: string,
  check: Check<T>,
  body?: unknown,
): Promise<T> {
  let json: string;
  let ok: boolean;
  try {
    const response = await requestControl(path, `/${target}`, {
      ...body !== undefined && {
        method: "POST",
        body: new TextEncoder().encode(JSON.stringify(body)),
      },
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    json = await textOf(response.body, MAX_ANSWER_BYTES, { what: "an answer", path });
    ok = response.ok;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable || cause instanceof RangeError) throw cause;
    throw new Error(
      `Expected a control socket (--control-path) that answers at ${path}; it may be another ` +
        "socket, or its server is gone",
      { cause },
    );
  }
  let answer: unknown;
  try {
    answer = JSON.parse(json);
  } catch (cause) {
    throw new Error(`Expected JSON from the control socket at ${path}`, { cause });
  }
  if (!ok) throw new Error(`${path}: ${Object(answer).error ?? json}`);
  check(answer, "");
  return answer as T;
}

/** May be written by others than its owner and group. */
const WRITABLE_BY_OTHERS = 0o002;

/**
 * The control sockets in a directory. One that others may write to, such as /tmp, has some that are
 * not to be believed: where QEMU's process is decides which file its log goes to.
 */
function socketsIn(directory: string): string[] {
  const isShared = ((Deno.statSync(directory).mode ?? 0) & WRITABLE_BY_OTHERS) !== 0;
  const paths = [...Deno.readDirSync(directory)].filter(({ name }) => CONTROL_NAME.test(name))
    .map(({ name }) => `${directory}/${name}`);
  return paths.filter((path) => {
    try {
      const { isSocket, uid } = Deno.lstatSync(path);
      return isSocket && (!isShared || uid === Deno.uid() || uid === 0);
    } catch {
      return false; // It is gone
    }
  }).sort().slice(0, MAX_SOCKETS);
}

/** The directories of sockets, where their devices may have control sockets, too. */
export function directoriesOf(paths: readonly string[]): string[] {
  return [...new Set(paths.map((path) => path.replace(/\/?[^/]*$/, "") || "/"))];
}

/**
 * Sorts paths into control sockets and directories.
 *
 * @throws {UsageError} When one is neither.
 */
export function sortPaths(paths: readonly string[]): { sockets: string[]; directories: string[] } {
  const sockets: string[] = [], directories: string[] = [];
  for (const path of paths) {
    let info: Deno.FileInfo;
    try {
      info = Deno.statSync(path);
    } catch (cause) {
      if (!(cause instanceof Deno.errors.NotFound)) throw cause;
      throw new UsageError(`Expected a control socket or a directory, found nothing at ${path}`);
    }
    if (info.isSocket) sockets.push(path);
    else if (info.isDirectory) directories.push(path.replace(/(.)\/+$/, "$1"));
    else throw new UsageError(`Expected a control socket or a directory at ${path}, got a file`);
  }
  return { sockets, directories };
}
