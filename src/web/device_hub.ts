/**
 * The devices of `vhostd web`: follows their control sockets, once for all browsers.
 *
 * @module
 */

import type { LiveJson } from "../runtime/changes.ts";
import { type Change, HEARTBEAT_MS } from "../runtime/changes.ts";
import type { ConfigField } from "../virtio/mod.ts";
import { applyChanges } from "./client/apply.ts";
import { linesOf } from "./lines.ts";

/** Number of devices; further ones are not shown. */
export const MAX_DEVICES = 64;

/** The name of a control socket in a directory: others may be vhost-user sockets. */
export const CONTROL_SOCKET_SUFFIX = ".ctl";

/** Time between two updates of browsers. */
const UPDATE_PERIOD_MS = 33;

/** Time between two attempts to reach a device, and between two looks at a directory. */
const RETRY_MS = 1000;

/** Time for an answer of a control socket, and between two lines of a stream. */
const ANSWER_TIMEOUT_MS = 5 * HEARTBEAT_MS;

/** A request that a control socket lists. */
export interface ListedRequest {
  method: string;
  path: string;
  about: string;
}

/** What a control socket answers to `GET /`. */
interface Index {
  device: { name: string; id: number; about: string };
  panel?: string;
  config?: ConfigField[];
  requests: ListedRequest[];
  instances?: string[];
}

/** A device, as browsers get it. */
export interface DeviceEntry {
  /** The path of the control socket. */
  path: string;
  /** The name of an instance, where the socket has several. */
  instance: string | null;
  /** Whether it is there now. */
  isLive: boolean;
  /** Why it is not. */
  problem: string | null;
  /** The URL of its panel's module, relative to the page's. */
  panel: string | null;
  /** The fields of config space. */
  fields: ConfigField[];
  /** The names of its queries and commands. */
  queries: string[];
  commands: string[];
  /** Its state now, or its last one; null before the first. */
  live: LiveJson | null;
}

/** The root of what browsers get. */
export interface PageState {
  /** Whether devices take commands from the page. */
  control: boolean;
  /** The devices by their names in URLs. */
  devices: Record<string, DeviceEntry>;
}

/** Settings of a {@linkcode DeviceHub}. */
export interface DeviceHubOptions {
  control: boolean;
  /** Turns the URL of a panel's module into one of the page. */
  servePanel(url: string): string | null;
}

/** Follows devices while anyone listens. */
export class DeviceHub {
  readonly state: PageState;
  readonly #paths: readonly string[];
  readonly #servePanel: DeviceHubOptions["servePanel"];
  readonly #listeners = new Set<(changes: string) => void>();
  readonly #followed = new Set<string>();
  #changes: Change[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #following: AbortController | undefined;

  /** @param paths Control sockets, and directories of them. */
  constructor(paths: readonly string[], { control, servePanel }: DeviceHubOptions) {
    this.#paths = paths;
    this.#servePanel = servePanel;
    this.state = { control, devices: {} };
  }

  /**
   * Calls `listener` with changes of the state as JSON, at most 30 times a second.
   *
   * @returns A function that ends that.
   */
  listen(listener: (changes: string) => void): () => void {
    this.#listeners.add(listener);
    if (this.#following === undefined) this.#follow();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.stop();
    };
  }

  /** Leaves the devices alone until somebody listens again. */
  stop(): void {
    this.#following?.abort();
    this.#following = undefined;
    this.#followed.clear();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#changes = [];
    this.state.devices = {};
  }

  /** Sends a request to a device; undefined if there is no such device or request. */
  async request(
    id: string,
    method: "GET" | "POST",
    name: string,
    { body, signal }: { body?: Uint8Array<ArrayBuffer>; signal?: AbortSignal } = {},
  ): Promise<Response | undefined> {
    const entry = Object.hasOwn(this.state.devices, id) ? this.state.devices[id] : undefined;
    if (entry === undefined) return undefined;
    if (!(method === "GET" ? entry.queries : entry.commands).includes(name)) return undefined;
    const client = clientOf(entry.path);
    try {
      const url = `http://vhostd${prefixOf(entry.instance)}/${name}`;
      return await fetch(url, { client, method, body, signal });
    } finally {
      client.close();
    }
  }

  #follow(): void {
    const { signal } = this.#following = new AbortController();
    for (const path of this.#paths) void this.#followPath(path, signal);
  }

  /** Follows a socket, or those of a directory as they come. */
  async #followPath(path: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const info = await Deno.stat(path).catch(() => undefined);
      if (!info?.isDirectory) return await this.#followSocket(path, signal);
      for (const name of await controlSocketsIn(path)) {
        void this.#followSocket(`${path.replace(/\/$/, "")}/${name}`, signal);
      }
      await delay(RETRY_MS, signal);
    }
  }

  /** Follows the device of a socket, or its instances, again and again. */
  async #followSocket(path: string, signal: AbortSignal): Promise<void> {
    if (this.#followed.has(path)) return;
    this.#followed.add(path);
    while (!signal.aborted) {
      const attempt = new AbortController();
      const ended = AbortSignal.any([signal, attempt.signal]);
      const client = clientOf(path);
      let problem: string;
      try {
        const index = await this.#index(client, ended);
        const instances = index.instances ?? [null];
        await Promise.race(
          instances.map((instance) => this.#followDevice(client, { path, instance }, index, ended)),
        );
        problem = gone(path);
      } catch (error) {
        problem = whyGone(path, error);
      } finally {
        attempt.abort();
        client.close();
      }
      if (signal.aborted) return;
      const known = Object.entries(this.state.devices).filter(([, entry]) => entry.path === path);
      if (known.length === 0) this.#add({ path, instance: null }, { problem });
      for (const [id] of known) {
        this.#change(["devices", id, "isLive", false], ["devices", id, "problem", problem]);
      }
      await delay(RETRY_MS, signal);
    }
  }

  async #index(client: Deno.HttpClient, signal: AbortSignal): Promise<Index> {
    const answered = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
    const response = await fetch("http://vhostd/", { client, signal: answered });
    const index = await response.json() as Index;
    if (!Array.isArray(index?.requests)) throw new TypeError("Expected a control socket of vhostd");
    return index;
  }

  async #followDevice(
    client: Deno.HttpClient,
    place: Pick<DeviceEntry, "path" | "instance">,
    index: Index,
    signal: AbortSignal,
  ): Promise<void> {
    const prefix = prefixOf(place.instance);
    // A trace writes files, which is not for whoever has the page
    const names = (method: string) =>
      index.requests.filter((request) => request.method === method)
        .map(({ path }) => path.replace(/^.*\//, "")).filter((name) => name !== "trace");
    const response = await fetch(`http://vhostd${prefix}/changes`, { client, signal });
    if (!response.ok) throw new TypeError("Expected GET /changes: its vhostd is too old");
    const isOurs = await isOwnSocket(place.path);
    let id: string | undefined;
    for await (const line of linesOf(response.body!)) {
      const value = JSON.parse(line);
      if (id !== undefined) {
        this.#change(...(value as Change[]).map((change) => ["devices", id, "live", ...change]));
        continue;
      }
      id = this.#add(place, {
        isLive: true,
        problem: null,
        panel: index.panel === undefined || !isOurs ? null : this.#servePanel(index.panel),
        fields: index.config ?? [],
        queries: names("GET"),
        commands: names("POST"),
        live: value,
      });
    }
  }

  /** Puts a device into the state, in place of an earlier one at the same place. */
  #add(
    { path, instance }: Pick<DeviceEntry, "path" | "instance">,
    parts: Partial<DeviceEntry>,
  ): string {
    const { devices } = this.state;
    const base = [path.replace(/^.*\//, "").replace(/\.\w+$/, ""), instance ?? []].flat().join("-")
      .replace(/[^\w-]+/g, "-");
    const isFree = (id: string) =>
      !Object.hasOwn(devices, id) ||
      devices[id].path === path && [instance, null].includes(devices[id].instance);
    let id = base || "device";
    for (let n = 2; !isFree(id); n++) id = `${base}-${n}`;
    if (!Object.hasOwn(devices, id) && Object.keys(devices).length >= MAX_DEVICES) {
      throw new RangeError(`Expected at most ${MAX_DEVICES} devices`);
    }
    this.#change(["devices", id, {
      ...{ path, instance, isLive: false, problem: null, panel: null, live: null },
      ...{ fields: [], queries: [], commands: [] },
      ...parts,
    }]);
    return id;
  }

  #change(...changes: Change[]): void {
    applyChanges(this.state, changes);
    this.#changes.push(...changes);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const json = JSON.stringify(this.#changes);
      this.#changes = [];
      for (const listener of this.#listeners) listener(json);
    }, UPDATE_PERIOD_MS);
  }
}

/** The names of the control sockets in a directory. */
export async function controlSocketsIn(directory: string): Promise<string[]> {
  try {
    const entries = await Array.fromAsync(Deno.readDir(directory));
    return entries.map(({ name }) => name).filter((name) => name.endsWith(CONTROL_SOCKET_SUFFIX))
      .sort();
  } catch {
    return [];
  }
}

/** Whether whoever made a socket has our rights, so that its panel may run in the page. */
async function isOwnSocket(path: string): Promise<boolean> {
  const { uid } = await Deno.stat(path);
  return uid === Deno.uid() || uid === 0;
}

function clientOf(path: string): Deno.HttpClient {
  return Deno.createHttpClient({ proxy: { transport: "unix", path } });
}

function prefixOf(instance: string | null): string {
  return instance === null ? "" : `/${instance}`;
}

function gone(path: string): string {
  return `Nothing answers at ${path}; waiting for it`;
}

function whyGone(path: string, error: unknown): string {
  if (error instanceof SyntaxError || error instanceof RangeError) return error.message;
  const { message } = error as Error;
  return /^Expected/.test(message) ? message : gone(path);
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    function end() {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    }
  });
}
