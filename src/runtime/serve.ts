/**
 * Serves a device. A device's module imports this one on every queue thread, where nothing is
 * served, so the server is loaded only when it is needed.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";
import type { DeviceServer, ServeOptions } from "./server.ts";

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
