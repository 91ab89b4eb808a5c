/**
 * Loads devices by name or from a module.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";
import { suggestion } from "../virtio/nearest.ts";
import { loadDefault } from "../runtime/load_default.ts";
import { UsageError } from "./usage_error.ts";

/** Devices by their name on the command line, each loaded only when it is used. */
export type DeviceTable = Readonly<Record<string, () => Promise<{ default: AnyDevice }>>>;

/** Whether a name is the path or URL of a module. */
function isModule(name: string): boolean {
  return /\.(m?ts|m?js)$/.test(name);
}

/**
 * Loads a device by its name, or from a module by its path or URL.
 *
 * @param alsoNames Other names to suggest for an unknown name.
 * @throws {UsageError} When there is no such device.
 * @throws {Error} When the module cannot be loaded or its default export is no device.
 */
export async function loadDevice(
  devices: DeviceTable,
  name: string,
  alsoNames: readonly string[] = [],
): Promise<AnyDevice> {
  if (isModule(name)) return await loadModule(name);
  if (!Object.hasOwn(devices, name)) {
    throw new UsageError(
      `Unknown device ${name}${
        suggestion(name, [...Object.keys(devices), ...alsoNames]) ||
        `; there are ${Object.keys(devices).join(", ")}, or the path of your own device's .ts file`
      }`,
    );
  }
  return (await devices[name]()).default;
}

async function loadModule(name: string): Promise<AnyDevice> {
  const device = (await loadDefault("device", name)).value as Partial<AnyDevice> | undefined;
  if (typeof device?.handlers !== "function" || typeof device.name !== "string") {
    throw new Error(
      `Expected a device as the default export of ${name}; write export default defineDevice({ … })`,
    );
  }
  return device as AnyDevice;
}
