/**
 * The device status field: virtio 1.3, 2.1.
 *
 * @module
 */

/** The bits of the device status field. */
export const deviceStatus = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** The names of the bits that a status has; `RESET` when it has none. */
export function nameStatus(status: number): string[] {
  if (status === 0) return ["RESET"];
  return Object.entries(deviceStatus).filter(([, bit]) => status & bit).map(([name]) => name);
}
