/**
 * The runtime: serving devices, and their records.
 *
 * @module
 */

export { DeviceHost, type DeviceHostOptions } from "./device_host.ts";
export type { Endpoint } from "./endpoint.ts";
export * from "./record.ts";
export * from "./server.ts";
export { EndpointError } from "../linux/mod.ts";
