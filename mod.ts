/**
 * vhostd: virtio devices in TypeScript, served to QEMU over vhost-user.
 *
 * @module
 */

export * from "./src/virtio/mod.ts";
export { Chain, Parts } from "./src/virtqueue/mod.ts";
