/**
 * Virtio: what a device is made of.
 *
 * @module
 */

export * from "./config_driver.ts";
export * from "./config_error.ts";
export * from "./config_fields.ts";
export * from "./config_layout.ts";
export * from "./config_self_describing.ts";
export * from "./config_space.ts";
export * from "./device.ts";
export * from "./features.ts";
export * from "./options.ts";
export * from "./status.ts";
