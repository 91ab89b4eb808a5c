/**
 * vhostd: virtio devices in TypeScript, served to QEMU over vhost-user.
 *
 * @module
 */
export {};
