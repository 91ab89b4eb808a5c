/**
 * vhostd: virtio devices in TypeScript, served to QEMU over vhost-user.
 *
 * @module
 */

export * from "./src/virtio/mod.ts";
export { Chain, Parts } from "./src/virtqueue/mod.ts";
export {
  type DeviceServer,
  type Endpoint,
  EndpointError,
  serve,
  type ServeOptions,
} from "./src/runtime/mod.ts";
export type { DeviceHostOptions } from "./src/runtime/mod.ts";
export type {
  ConnectionRecord,
  ErrorRecord,
  FeatureRecord,
  QueueRecord,
  RecordJson,
  Source,
  StatusRecord,
} from "./src/runtime/record.ts";
export type { QueueCounts } from "./src/runtime/counters.ts";
export type { Visibility } from "./src/runtime/visibility.ts";
export type { IoUring, IoUringOptions, SocketAccess, ThreadIo } from "./src/linux/mod.ts";
