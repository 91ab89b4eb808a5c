/**
 * The values of a device's options.
 *
 * @module
 */

import type { AnyDevice } from "./device.ts";
import { expectNames } from "./names.ts";
import { defaultOptions, expectEffect } from "./options.ts";

/**
 * Completes the options that a device, or each of its instances, is given, and checks them.
 *
 * @param given The values that were given, by instance.
 * @returns The same with defaults.
 * @throws {OptionError} When one has no effect, or they contradict each other.
 * @throws {Error} When the device has no such option.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { deviceOptions } from "./device_options.ts";
 * import rng from "../../backends/rng/mod.ts";
 *
 * assertEquals(deviceOptions(rng, [{ maxBytes: 1000 }])[0].maxBytes, 1000);
 * ```
 */
export function deviceOptions(
  device: AnyDevice,
  given: readonly Readonly<Record<string, unknown>>[],
): Record<string, unknown>[] {
  const { name, options = {} } = device;
  const values = given.map((one) => {
    expectNames(`options of ${name}`, Object.keys(one), Object.keys(options));
    expectEffect(options, one);
    return { ...defaultOptions(options), ...one };
  });
  device.checkOptions?.(values, given);
  return values;
}
