/**
 * Virtio: what a device is made of.
 *
 * @module
 */

export * from "./config/driver.ts";
export * from "./config/error.ts";
export * from "./config/fields.ts";
export * from "./config/layout.ts";
export type { ConfigObservation } from "./config/observation.ts";
export * from "./config/self_describing.ts";
export * from "./config/space.ts";
export type { ConfigStep, ConfigSteps } from "./config/steps.ts";
export type * from "./config/write.ts";
export * from "./define_device.ts";
export * from "./device.ts";
export * from "./device_options.ts";
export type * from "./device_requests.ts";
export * from "./features.ts";
export * from "./format_bytes.ts";
export * from "./options.ts";
export * from "./status.ts";
