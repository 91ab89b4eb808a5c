/**
 * The devices of `vhostd web`: follows their control sockets, once for all browsers.
 *
 * @module
 */

import { type Change, HEARTBEAT_MS, type LiveJson } from "../runtime/changes.ts";
import { type ControlRequestOptions, requestControl } from "../runtime/control_request.ts";
import { checkRecord } from "../runtime/record_shape.ts";
import * as shape from "../runtime/shape.ts";
import type { ConfigField } from "../virtio/mod.ts";
import { applyChanges } from "./client/apply.ts";
import { changeLines } from "./change_lines.ts";
import { MAX_LINE_CHARACTERS, textOf } from "./lines.ts";

/** Number of devices; the page names further ones as left out. */
export const MAX_DEVICES = 64;

/** Number of devices that are left out by name; further ones are only counted. */
const MAX_NAMED = 64;

/** Number of queries and commands at a time, those with endless answers too. */
export const MAX_ASKED = 32;

/** The name of a control socket in a directory: others may be vhost-user sockets. */
const CONTROL_SOCKET_SUFFIX = ".ctl";

/** Time between two updates of browsers. */
const UPDATE_PERIOD_MS = 30;

/** Time between two attempts to reach a device, and between two looks at a directory. */
const RETRY_MS = 1000;

/** Time for a browser that has the page to listen. */
const PREPARED_MS = 5000;

/** The longest answer to `GET /`, in bytes. */
const MAX_INDEX_BYTES = 2 ** 22;

/** The longest state of a device as JSON: one that grows beyond counts as gone. */
const MAX_STATE_CHARACTERS = MAX_LINE_CHARACTERS / 2;

/** Time for an answer of a control socket. */
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

const { any, list, members, optional, text } = shape;

const checkIndex = members<Index>({
  device: any,
  panel: optional(text),
  config: optional(list(members<ConfigField>({
    ...{ name: text, offset: shape.number, size: shape.number, type: text, access: text },
    ...{ feature: optional(text), about: text, group: optional(text) },
    ...{ mark: any, bits: any },
  }))),
  requests: list(members({ method: text, path: text, about: text })),
  instances: optional((value, at) => {
    list(text)(value, at);
    const { length } = value as string[];
    if (length > 0 && length <= MAX_DEVICES) return;
    throw new RangeError(`Expected 1 to ${MAX_DEVICES} instances, got ${length}`);
  }),
});

const bytes: shape.Check<string> = (value, at) => {
  text(value, at);
  if (!/^([\da-f]{2})*$/.test(value as string)) throw new RangeError(`Expected bytes as ${at}`);
};

const checkLive = members<LiveJson>({ record: checkRecord, config: bytes });

/** Whether a change leaves a state whose shape was checked with that shape. */
function keepsShape(live: LiveJson, change: Change): boolean {
  const after = change[change.length - 1];
  if (typeof after === "object" || change[0] === "config") return false;
  let at: unknown = live;
  for (let i = 0; i < change.length - 1; i++) at = Object(at)[change[i] as string];
  return typeof at === typeof after;
}

/** @throws {RangeError} When a value is no list of changes. */
function checkChanges(value: unknown): asserts value is Change[] {
  const isPath = (names: unknown[]) =>
    names.length > 0 && names.every((name) => typeof name === "string" || typeof name === "number");
  if (
    Array.isArray(value) && value.every((one) => Array.isArray(one) && isPath(one.slice(0, -1)))
  ) {
    return any(value.map((change) => change.at(-1)), "changes");
  }
  throw new RangeError("Expected changes, each a path and a value");
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

/** Where a device is. */
type Place = Pick<DeviceEntry, "path" | "instance">;

/** The root of what browsers get. */
export interface PageState {
  /** Whether devices take commands from the page. */
  control: boolean;
  /** The devices by their names in URLs. */
  devices: Record<string, DeviceEntry>;
  /** Devices that answer and have no place here: how many, and the first of them by their paths. */
  leftOut: { count: number; names: string[] };
}

/** Settings of a {@linkcode DeviceHub}. */
export interface DeviceHubOptions {
  control: boolean;
  /** Turns the URL of a panel's module into one of the page. */
  servePanel(url: string): string | null;
  /** Prints a line for the person who runs the page. */
  log(message: string): void;
}

/** Follows devices while anyone listens. */
export class DeviceHub {
  readonly state: PageState;
  readonly #paths: readonly string[];
  readonly #servePanel: DeviceHubOptions["servePanel"];
  readonly #log: DeviceHubOptions["log"];
  /** The names of devices that are left out, each with its socket's path. */
  readonly #leftOut = new Map<string, string>();
  #hasLogged = false;
  /** Names of devices of other users, who may fill a directory: ours take their places. */
  readonly #foreign = new Set<string>();
  readonly #listeners = new Set<(changes: string) => void>();
  readonly #followed = new Set<string>();
  /** Number of requests whose answers have not ended. */
  #asked = 0;
  #changes: Change[] = [];
  /** The next update. Devices are read after it, all in one turn of the event loop. */
  #update = Promise.withResolvers<void>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #following: AbortController | undefined;
  #preparing: ReturnType<typeof setTimeout> | undefined;

  /** @param paths Control sockets, and directories of them. */
  constructor(paths: readonly string[], { control, servePanel, log }: DeviceHubOptions) {
    this.#paths = paths;
    this.#servePanel = servePanel;
    this.#log = log;
    this.state = { control, devices: {}, leftOut: { count: 0, names: [] } };
  }

  /**
   * Calls `listener` with changes of the state as JSON, at most 33 times a second.
   *
   * @returns A function that ends that.
   */
  listen(listener: (changes: string) => void): () => void {
    this.#listeners.add(listener);
    if (this.#following === undefined) this.#follow();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0 && this.#preparing === undefined) this.stop();
    };
  }

  /** Follows the devices already, for a browser that is about to listen. */
  prepare(): void {
    if (this.#following === undefined) this.#follow();
    clearTimeout(this.#preparing);
    this.#preparing = setTimeout(() => {
      this.#preparing = undefined;
      if (this.#listeners.size === 0) this.stop();
    }, PREPARED_MS);
  }

  /** Leaves the devices alone until the next listener. */
  stop(): void {
    clearTimeout(this.#preparing);
    this.#preparing = undefined;
    this.#following?.abort();
    this.#following = undefined;
    this.#followed.clear();
    clearInterval(this.#timer);
    this.#update.resolve();
    this.#changes = [];
    this.state.devices = {};
    this.#leftOut.clear();
    this.#foreign.clear();
    this.state.leftOut = { count: 0, names: [] };
  }

  /** Sends a request to a device; undefined if there is no such device or request. */
  async request(
    id: string,
    method: "GET" | "POST",
    name: string,
    options: Pick<ControlRequestOptions, "body" | "signal"> = {},
  ): Promise<Response | undefined> {
    const entry = Object.hasOwn(this.state.devices, id) ? this.state.devices[id] : undefined;
    if (entry === undefined) return undefined;
    if (!(method === "GET" ? entry.queries : entry.commands).includes(name)) return undefined;
    const target = `${prefixOf(entry.instance)}/${name}`;
    if (this.#asked >= MAX_ASKED) {
      const why = `Expected at most ${MAX_ASKED} questions to devices at a time; try again\n`;
      return new Response(why, { status: 503 });
    }
    this.#asked++;
    const onEnd = () => void this.#asked--;
    return await requestControl(entry.path, target, { ...options, method, onEnd });
  }

  #follow(): void {
    const { signal } = this.#following = new AbortController();
    this.#timer = setInterval(() => this.#tell(), UPDATE_PERIOD_MS);
    for (const path of this.#paths) void this.#followPath(path, signal);
  }

  /** Follows a socket, or those of a directory as they come. */
  async #followPath(path: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const info = await Deno.stat(path).catch(() => undefined);
      if (!info?.isDirectory) return await this.#followSocket(path, signal);
      for (const name of await controlSocketsIn(path)) {
        void this.#followSocket(`${path.replace(/\/$/, "")}/${name}`, signal, true);
      }
      await delay(RETRY_MS, signal);
    }
  }

  /**
   * Follows the device of a socket, or its instances, again and again.
   *
   * @param isListed A directory lists it: when it is gone, the directory is what to look at.
   */
  async #followSocket(path: string, signal: AbortSignal, isListed = false): Promise<void> {
    // An earlier attempt may come here late: it must not keep the next one from it
    if (signal.aborted || this.#followed.has(path)) return;
    this.#followed.add(path);
    while (!signal.aborted) {
      const attempt = new AbortController();
      const ended = AbortSignal.any([signal, attempt.signal]);
      let problem: string;
      try {
        const index = await this.#index(path, ended);
        const instances = index.instances ?? [null];
        await Promise.race(
          instances.map((instance) => this.#followDevice({ path, instance }, index, ended)),
        );
        problem = gone(path);
      } catch (error) {
        problem = whyGone(path, error);
      } finally {
        attempt.abort();
      }
      if (signal.aborted) return;
      for (const [name, at] of this.#leftOut) if (at === path) this.#takeIn(name);
      const known = Object.entries(this.state.devices).filter(([, entry]) => entry.path === path);
      if (known.length === 0) this.#add({ path, instance: null }, { problem });
      for (const [id] of known) {
        this.#change([["devices", id, "isLive", false], ["devices", id, "problem", problem]]);
      }
      await delay(RETRY_MS, signal);
      if (isListed && await Deno.lstat(path).catch(() => undefined) === undefined) {
        if (!signal.aborted) this.#followed.delete(path);
        return;
      }
    }
  }

  async #index(path: string, signal: AbortSignal): Promise<Index> {
    const answered = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
    const { body } = await requestControl(path, "/", { signal: answered });
    const json = await textOf(body, MAX_INDEX_BYTES, { what: "an index", path });
    const index = JSON.parse(json);
    checkIndex(index, "");
    return index;
  }

  /** Follows a device until it is gone; one that is left out is tried again and again. */
  async #followDevice(place: Place, index: Index, signal: AbortSignal): Promise<void> {
    const name = place.instance === null ? place.path : `${place.path} (${place.instance})`;
    while (!await this.#followShown(place, name, index, signal)) await delay(RETRY_MS, signal);
  }

  /** Follows a device until it is gone; returns whether there was a place for it. */
  async #followShown(
    place: Place,
    name: string,
    index: Index,
    signal: AbortSignal,
  ): Promise<boolean> {
    const prefix = prefixOf(place.instance);
    // A trace writes files, which users of the page may not
    const names = (method: string) =>
      index.requests.filter((request) => request.method === method)
        .map(({ path }) => path.replace(/^.*\//, "")).filter((name) => name !== "trace");
    const isOurs = await isOwnSocket(place.path);
    let id: string | undefined;
    let characters = 0;
    const pause = () => id === undefined ? undefined : this.#update.promise;
    for await (const line of changeLines(place.path, prefix, pause, signal)) {
      const value = JSON.parse(line);
      characters += line.length;
      if (id !== undefined) {
        checkChanges(value);
        const { live } = this.state.devices[id];
        const isShaped = value.every((change) => keepsShape(live!, change));
        this.#change(value.map((change) => ["devices", id, "live", ...change]));
        if (!isShaped) this.#expectLive(id);
        if (characters > MAX_LINE_CHARACTERS) {
          characters = JSON.stringify(this.state.devices[id].live).length;
          if (characters > MAX_STATE_CHARACTERS) {
            throw new RangeError(`Expected a state of at most ${MAX_STATE_CHARACTERS} characters`);
          }
        }
        continue;
      }
      checkLive(value, "");
      id = this.#add(place, {
        isLive: true,
        problem: null,
        panel: index.panel === undefined || !isOurs ? null : this.#servePanel(index.panel),
        fields: index.config ?? [],
        queries: names("GET"),
        commands: names("POST"),
        live: value,
      }, isOurs);
      if (signal.aborted) return true;
      if (id === undefined) {
        this.#leaveOut(name, place.path);
        return false;
      }
      this.#takeIn(name);
    }
    return true;
  }

  #leaveOut(name: string, path: string): void {
    if (this.#leftOut.has(name)) return;
    this.#leftOut.set(name, path);
    this.#tellLeftOut();
    if (this.#hasLogged) return;
    this.#hasLogged = true;
    this.#log(
      `The page shows up to ${MAX_DEVICES} devices; it leaves out ${name}, and names others that ` +
        "it leaves out. Give fewer paths, or start another vhostd web for them",
    );
  }

  /** The device is shown, or is gone. */
  #takeIn(name: string): void {
    if (this.#leftOut.delete(name)) this.#tellLeftOut();
  }

  #tellLeftOut(): void {
    const names = [...this.#leftOut.keys()].slice(0, MAX_NAMED);
    this.#change([["leftOut", { count: this.#leftOut.size, names }]]);
  }

  /** @throws {RangeError} When changes have left no state of a device; browsers get none then. */
  #expectLive(id: string): void {
    try {
      checkLive(this.state.devices[id].live, "");
    } catch (error) {
      this.#change([["devices", id, "live", null]]);
      throw error;
    }
  }

  /**
   * Puts a device into the state, in place of an earlier one at the same place.
   *
   * @returns Its name in URLs; undefined if there are too many.
   */
  #add(
    { path, instance }: Place,
    parts: Partial<DeviceEntry>,
    isOurs = false,
  ): string | undefined {
    const { devices } = this.state;
    const base = [path.replace(/^.*\//, "").replace(/\.\w+$/, ""), instance ?? []].flat().join("-")
      .replace(/[^\w-]+/g, "-");
    const isFree = (id: string) =>
      !Object.hasOwn(devices, id) ||
      devices[id].path === path && [instance, null].includes(devices[id].instance);
    let id = base || "device";
    for (let n = 2; !isFree(id); n++) id = `${base}-${n}`;
    if (!Object.hasOwn(devices, id) && Object.keys(devices).length >= MAX_DEVICES) {
      const gone = Object.keys(devices).find((id) => !devices[id].isLive) ??
        (isOurs ? Object.keys(devices).find((id) => this.#foreign.has(id)) : undefined);
      // One that is not there takes no place of another
      if (gone === undefined || !parts.isLive) return undefined;
      const { [gone]: _, ...others } = devices;
      this.#change([["devices", others]]);
    }
    this.#change([["devices", id, {
      ...{ path, instance, isLive: false, problem: null, panel: null, live: null },
      ...{ fields: [], queries: [], commands: [] },
      ...parts,
    }]]);
    if (isOurs) this.#foreign.delete(id);
    else if (parts.isLive) this.#foreign.add(id);
    return id;
  }

  #change(changes: readonly Change[]): void {
    applyChanges(this.state, changes);
    for (const change of changes) this.#changes.push(change);
  }

  /** Tells the listeners what has changed since the last update. */
  #tell(): void {
    if (this.#changes.length > 0) {
      const json = JSON.stringify(this.#changes);
      this.#changes = [];
      for (const listener of this.#listeners) listener(json);
    }
    this.#update.resolve();
    this.#update = Promise.withResolvers();
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

/**
 * Whether the owner of a socket has our rights, so that its panel may run in the page. A link
 * belongs to the user who made it, wherever it leads.
 */
async function isOwnSocket(path: string): Promise<boolean> {
  const { uid } = await Deno.lstat(path);
  return uid === Deno.uid() || uid === 0;
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
  if (error instanceof Deno.errors.NotCapable) return message;
  return /^Expected/.test(message) ? message : gone(path);
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end, { once: true });
    function end() {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    }
  });
}
