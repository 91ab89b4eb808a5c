/**
 * The other side of a device: a vhost-user front-end and a virtio driver over shared memory. For
 * tests, benchmarks and authors who want to see a device work without QEMU.
 *
 * From the top: {@linkcode BlkDriver} speaks to block devices, {@linkcode VirtioDriver} to any
 * device, {@linkcode FrontendConnection} sends single requests, {@linkcode DriverQueue} and
 * {@linkcode PackedDriverQueue} are virtqueues and {@linkcode SharedMemory} what they lie in.
 * {@linkcode RawSplitRing}, {@linkcode RawPackedRing} and {@linkcode ControlChannel.send} do what a
 * driver and a front-end must not.
 *
 * @module
 */

export * from "./allocator.ts";
export * from "./back_channel.ts";
export * from "./blk_driver.ts";
export * from "./connection.ts";
export * from "./control_channel.ts";
export * from "./driver_config.ts";
export * from "./driver_queues.ts";
export {
  type AddOptions,
  type BufferPart,
  type DriverQueueHandle,
  type DriverQueueOptions,
  DriverRing,
  type RingPlaces,
} from "./driver_ring.ts";
export * from "./frontend_error.ts";
export * from "./negotiation.ts";
export * from "./packed_queue.ts";
export * from "./raw_packed_ring.ts";
export * from "./raw_split_ring.ts";
export * from "./request_queue.ts";
export * from "./shared_memory.ts";
export * from "./split_queue.ts";
export * from "./virtio_driver.ts";

export { Fd, type Received, UnixConnection } from "../linux/mod.ts";
export type * from "../virtio/config/driver.ts";
export * from "../vhost_user/mod.ts";
