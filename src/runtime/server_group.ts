/**
 * Serves several instances of a device in one process, for instance the ports of a switch.
 *
 * Each instance has its own socket, connection, guest memory and record. They share a queue thread,
 * where each has its own engine: what breaks a queue or ends a connection of one concerns no other.
 *
 * @module
 */

import { type AnyDevice, deviceOptions } from "../virtio/mod.ts";
import type { DeviceHostOptions } from "./device_host.ts";
import type { FrontendSource } from "./endpoint.ts";
import type { RecordJson } from "./record.ts";
import { DeviceServer } from "./server.ts";
import { QueueThread } from "./thread_transport.ts";

/** An instance of a device. */
export interface Instance {
  /** The name by which people tell it from the others. */
  readonly name: string;
  /** Its front-ends; closed at the end. */
  readonly source: FrontendSource;
  readonly options: DeviceHostOptions;
}

/** The records of several instances as JSON. */
export interface GroupRecordJson {
  /** The version of this shape. */
  version: 1;
  /** The records by the names of the instances. */
  instances: Record<string, RecordJson>;
}

/** Running servers of the instances of a device. */
export class ServerGroup implements AsyncDisposable {
  /** The servers, by the names of their instances. */
  readonly servers: ReadonlyMap<string, DeviceServer>;
  /** Resolves when all have ended; rejects when the first one cannot go on. */
  readonly finished: Promise<unknown>;
  readonly #owned: AsyncDisposableStack;

  private constructor(servers: Map<string, DeviceServer>, owned: AsyncDisposableStack) {
    this.servers = servers;
    this.#owned = owned;
    this.finished = Promise.all([...servers.values()].map(({ finished }) => finished));
    this.finished.catch(() => {});
  }

  /**
   * Serves the instances of a device.
   *
   * @throws The error of the device's `open`; nothing is served then.
   */
  static async start(device: AnyDevice, instances: readonly Instance[]): Promise<ServerGroup> {
    const servers = new Map<string, DeviceServer>();
    await using owned = new AsyncDisposableStack();
    for (const { source } of instances) owned.defer(() => source[Symbol.dispose]());
    deviceOptions(device, instances.map(({ options }) => options.options ?? {}));
    const thread = owned.use(new QueueThread(device.name));
    for (const [instance, { name, source, options }] of instances.entries()) {
      const shared = { thread, instance, name };
      servers.set(name, owned.use(await DeviceServer.start(source, device, options, shared)));
    }
    return new ServerGroup(servers, owned.move());
  }

  /** The records as they are now, with what queue threads report now. */
  async freshRecord(): Promise<GroupRecordJson> {
    const records = await Promise.all(
      [...this.servers].map(async ([name, server]) => [name, await server.freshRecord()] as const),
    );
    return { version: 1, instances: Object.fromEntries(records) };
  }

  /** The records with what queue threads reported for the last fresh ones. */
  record(): GroupRecordJson {
    const records = [...this.servers].map(([name, server]) => [name, server.record()]);
    return { version: 1, instances: Object.fromEntries(records) };
  }

  /** Closes the connections, the sockets, their files, and the instances. */
  async close(): Promise<void> {
    await Promise.all([...this.servers.values()].map((server) => server.close()));
    await this.#owned.disposeAsync();
  }

  /** The same as {@linkcode ServerGroup.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
