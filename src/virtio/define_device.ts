/**
 * Defining a device.
 *
 * @module
 */

import type { ConfigLayout } from "./config/layout.ts";
import {
  DEFAULT_MOST_PENDING,
  DEFAULT_QUEUE_SIZE,
  type DeviceDefinition,
  type Features,
  type Options,
  type Queues,
} from "./device.ts";
import { checkDefinition } from "./device_names.ts";
import { expectNames } from "./names.ts";

/**
 * Defines a device. The definition is checked here, once, so that everything else can rely on it.
 *
 * @throws {TypeError} When names, bits or sizes are not possible.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { defineDevice } from "./define_device.ts";
 *
 * const rng = defineDevice({
 *   name: "rng",
 *   deviceId: 4,
 *   about: "Entropy from the host",
 *   module: import.meta.url,
 *   queues: { requestq: { about: "Buffers to fill" } },
 *   handlers: () => ({
 *     queues: {
 *       requestq(chain) {
 *         for (const bytes of chain.writable) crypto.getRandomValues(bytes);
 *         return chain.writableBytes;
 *       },
 *     },
 *   }),
 * });
 * assertEquals(rng.deviceId, 4);
 * ```
 */
export function defineDevice<
  const Q extends Queues,
  // deno-lint-ignore ban-types
  const F extends Features = {},
  L extends ConfigLayout = ConfigLayout,
  // deno-lint-ignore ban-types
  const O extends Options = {},
  S = undefined,
>(definition: DeviceDefinition<Q, F, L, O, S>): DeviceDefinition<Q, F, L, O, S> {
  const { name, queues, features = {} } = definition;
  const refuse = (what: string): never => {
    throw new TypeError(`Device ${name}: ${what}`);
  };
  if (!/^[a-z][a-z0-9-]*$/.test(name)) refuse("expected a name of a-z, 0-9 and -");
  checkDefinition(definition);
  for (const [queue, definition] of Object.entries(queues as Queues)) {
    const { size = DEFAULT_QUEUE_SIZE, mostPending = DEFAULT_MOST_PENDING } = definition;
    if (size < 1 || size > 32768 || (size & (size - 1)) !== 0) {
      refuse(`expected a power of 2 up to 32768 as the size of ${queue}, got ${size}`);
    }
    if (!(Number.isInteger(mostPending) && mostPending >= 1 && mostPending <= 32768)) {
      refuse(`expected 1 to 32768 as mostPending of ${queue}, got ${mostPending}`);
    }
  }
  for (const { needs } of Object.values((definition.options ?? {}) as Options)) {
    if (needs !== undefined) {
      expectNames(`options of ${name}`, [needs], Object.keys(definition.options!));
    }
  }
  const bits = new Map<number, string>();
  for (const [feature, { bit }] of Object.entries(features as Features)) {
    // virtio 1.3, 2.2: 0 to 23 and 50 to 127 are for the device type.
    if (!Number.isInteger(bit) || bit < 0 || bit > 63 || (bit > 23 && bit < 50)) {
      refuse(`expected bit 0 to 23 or 50 to 63 for feature ${feature}, got ${bit}`);
    }
    if (bits.has(bit)) refuse(`features ${bits.get(bit)} and ${feature} have the same bit ${bit}`);
    bits.set(bit, feature);
  }
  for (const field of definition.config?.fields ?? []) {
    if (field.feature !== undefined && !(field.feature in features)) {
      refuse(`config field ${field.name} names the unknown feature ${field.feature}`);
    }
  }
  return Object.freeze(definition);
}
