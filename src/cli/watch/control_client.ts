/**
 * Finds the control sockets of devices, and posts to them what was traced.
 *
 * @module
 */

import type { TraceBatch } from "../../runtime/driver_trace.ts";
import { UsageError } from "../usage_error.ts";

/** The most sockets of a directory that are looked at. */
const MAX_SOCKETS = 256;

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

/** The control sockets that are given, or are in given directories. */
export class ControlSockets implements Disposable {
  readonly #clients: Deno.HttpClient[] = [];

  /**
   * Finds the devices behind control sockets.
   *
   * @param given Paths of control sockets; each must answer.
   * @param directories Paths of directories; sockets in them count that are named `*.ctl` and
   * answer.
   */
  async find(given: readonly string[], directories: readonly string[]): Promise<ServedDevice[]> {
    const found: ServedDevice[] = [];
    for (const path of given) found.push(...await this.#devices(path));
    for (const directory of directories) {
      const sockets = socketsIn(directory).filter((path) => !given.includes(path));
      for (const path of sockets) {
        found.push(...await this.#devices(path).catch(() => []));
      }
    }
    return found;
  }

  async #devices(path: string): Promise<ServedDevice[]> {
    const client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    this.#clients.push(client);
    const ask = (target: string, body?: unknown) => askControl(client, path, target, body);
    const { instances = [""] } = await ask("") as { instances?: string[] };
    return await Promise.all(instances.map(async (instance): Promise<ServedDevice> => {
      const prefix = instance === "" ? "" : `${encodeURIComponent(instance)}/`;
      const { socketPath, device } = await ask(prefix) as {
        socketPath?: string;
        device: { name: string };
      };
      const record = await ask(`${prefix}record`) as {
        connections: { latest: { frontend: { pid: number } | null }[] };
      };
      return {
        name: instance === "" ? device.name : `${device.name}/${instance}`,
        socketPath,
        frontendPid: record.connections.latest.at(-1)?.frontend?.pid,
        post: async (batch) => void await ask(`${prefix}traced`, batch),
      };
    }));
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients) client.close();
  }
}

async function askControl(
  client: Deno.HttpClient,
  path: string,
  target: string,
  body?: unknown,
): Promise<unknown> {
  let text: string;
  let ok: boolean;
  try {
    const response = await fetch(`http://localhost/${target}`, {
      client,
      ...body !== undefined && { method: "POST", body: JSON.stringify(body) },
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    text = await response.text();
    ok = response.ok;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new Error(
      `Expected a control socket (--control-path) that answers at ${path}; it may be another ` +
        "socket, or its server is gone",
      { cause },
    );
  }
  let answer: { error?: string };
  try {
    answer = JSON.parse(text);
  } catch (cause) {
    throw new Error(`Expected JSON from the control socket at ${path}`, { cause });
  }
  if (!ok) throw new Error(`${path}: ${answer.error ?? text}`);
  return answer;
}

/** The control sockets in a directory. */
function socketsIn(directory: string): string[] {
  const sockets = [...Deno.readDirSync(directory)].filter(({ name, isSymlink }) =>
    CONTROL_NAME.test(name) && !isSymlink
  ).map(({ name }) => `${directory}/${name}`).filter((path) => Deno.lstatSync(path).isSocket);
  return sockets.sort().slice(0, MAX_SOCKETS);
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
