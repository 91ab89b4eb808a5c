/**
 * Serving a device, for those who import all of vhostd.
 *
 * A device's module imports it too, and is loaded on every queue thread: what serves is of no use
 * there, so it is loaded when somebody does.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";
import type { DeviceServer, ServeOptions } from "./server.ts";

/**
 * Serves a device.
 *
 * @throws {EndpointError} When the endpoint cannot be had.
 * @throws What the device's `open` throws.
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
  return await (await import("./server.ts")).serve(device, options);
}
