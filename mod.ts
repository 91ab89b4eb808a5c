/**
 * vhostd: virtio devices in TypeScript, served to QEMU over vhost-user.
 *
 * @module
 */

export * from "./src/virtio/mod.ts";
export { expectNames } from "./src/virtio/names.ts";
export { Chain } from "./src/virtqueue/chain.ts";
export { Parts, type VectorSink } from "./src/virtqueue/parts.ts";
export { loadDefault, type LoadedDefault } from "./src/runtime/load_default.ts";
export { shown, shownJson } from "./src/runtime/shown.ts";
export { serve, serveInstances } from "./src/runtime/serve.ts";
export { EndpointError } from "./src/linux/mod.ts";
export type { DeviceHostOptions } from "./src/runtime/device_host.ts";
export type { Endpoint } from "./src/runtime/endpoint.ts";
export type { DeviceServer, ServeOptions } from "./src/runtime/server.ts";
export type { GroupRecordJson, ServerGroup } from "./src/runtime/server_group.ts";
export type {
  ConnectionRecord,
  ErrorRecord,
  FeatureRecord,
  ProcessRecord,
  QueueRecord,
  RecordJson,
  StatusRecord,
} from "./src/runtime/record.ts";
export type { QueueCounts } from "./src/runtime/counters.ts";
export type {
  ConfigAccess,
  RegisterAccess,
  TimelineEntry,
  TraceRecord,
} from "./src/runtime/driver_trace.ts";
export type { LatencyRecord } from "./src/runtime/latency.ts";
export type { Source, Visibility } from "./src/runtime/visibility.ts";
export type {
  IoCallbacks,
  IoUring,
  IoUser,
  Readiness,
  SocketAccess,
  ThreadIo,
  Watch,
} from "./src/linux/mod.ts";
