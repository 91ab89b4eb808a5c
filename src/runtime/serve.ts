/**
 * Serves a device. A device's module imports this one on every queue thread, where nothing is
 * served, so the server is loaded only when it is needed.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";
import type { DeviceServer, ServeOptions } from "./server.ts";
import type { ServerGroup } from "./server_group.ts";

/**
 * Serves a device.
 *
 * @throws {EndpointError} When the endpoint cannot be opened.
 * @throws The error of the device's `open`.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { serve } from "@vhostd/vhostd";
 * import rng from "../../backends/rng/mod.ts";
 *
 * const socketPath = `${Deno.makeTempDirSync()}/rng.sock`;
 * await using server = await serve(rng, { socketPath });
 * assertEquals(server.record().queues[0].requests, 0);
 * ```
 */
export async function serve(device: AnyDevice, options: ServeOptions): Promise<DeviceServer> {
  const [{ DeviceServer }, { openEndpoint }] = await Promise.all([
    import("./server.ts"),
    import("./endpoint.ts"),
  ]);
  return await DeviceServer.start(openEndpoint(options, options.log), device, options);
}

/**
 * Serves several instances of a device, each to its own front-ends. They share one queue thread.
 *
 * @param instances The endpoint and options of each, by its name.
 * @throws {EndpointError} When an endpoint cannot be opened.
 * @throws The error of the device's `open`.
 */
export async function serveInstances(
  device: AnyDevice,
  instances: Readonly<Record<string, ServeOptions>>,
): Promise<ServerGroup> {
  const [{ ServerGroup }, { openEndpoint }] = await Promise.all([
    import("./server_group.ts"),
    import("./endpoint.ts"),
  ]);
  using opened = new DisposableStack();
  const list = Object.entries(instances).map(([name, options]) => ({
    ...{ name, options },
    source: opened.use(openEndpoint(options, options.log)),
  }));
  opened.move();
  return await ServerGroup.start(device, list);
}
