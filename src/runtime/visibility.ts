/**
 * What a front-end lets a back-end see. QEMU hides some of what the guest's
 * driver does, and how much depends on the device (read in QEMU 7.2 and 10.0:
 * `hw/virtio/vhost-user*.c`, `hw/block/vhost-user-blk.c`).
 *
 * @module
 */

import type { Source } from "./record.ts";

/** How something is known, with what limits that. */
export interface Visibility {
  /** How it is known. */
  source: Source;
  /** What limits that. */
  note: string;
}

/** What can be seen of a device with a front-end. */
export interface DeviceVisibility {
  configReads: Visibility;
  configWrites: Visibility;
  status: Visibility;
}

const reported = (note: string): Visibility => ({ source: "reported", note });
const inferred = (note: string): Visibility => ({ source: "inferred", note });
const hidden = (note: string): Visibility => ({ source: "not observable", note });

const GPU = 16, INPUT = 18, SOUND = 25, GPIO = 41, BLOCK = 2, VSOCK = 19; // virtio 1.3, 5

/** QEMU passes on every access of these devices, widened to the whole space. */
const WIDENED = [INPUT, SOUND, GPIO, GPU];

const QEMU_STATUS = inferred(
  "QEMU sends the status at feature negotiation, and for some devices at start and stop; it sets ACKNOWLEDGE and DRIVER itself",
);

/** What can be seen of a device type, given the command name of the front-end's process. */
export function visibilityOf(deviceId: number, frontend: string | null): DeviceVisibility {
  if (frontend === null || !frontend.startsWith("qemu-system")) {
    const note = frontend === null
      ? "as the messages say; the front-end is not known"
      : `as the messages of ${frontend} say`;
    return { configReads: reported(note), configWrites: reported(note), status: reported(note) };
  }
  if (WIDENED.includes(deviceId)) {
    return {
      configReads: reported("QEMU passes on each of the driver's reads, as one of the whole space"),
      configWrites: reported(
        "QEMU passes on each of the driver's writes, as one of the whole space",
      ),
      status: QEMU_STATUS,
    };
  }
  if (deviceId === BLOCK || deviceId === VSOCK) {
    return {
      configReads: inferred("QEMU reads the space itself and answers the driver from its copy"),
      configWrites: deviceId === BLOCK
        ? reported("QEMU passes on a change of the writeback byte, and nothing else")
        : hidden("QEMU passes on no write of this device"),
      status: QEMU_STATUS,
    };
  }
  return {
    configReads: hidden("QEMU makes the config space of this device itself"),
    configWrites: hidden("QEMU makes the config space of this device itself"),
    status: QEMU_STATUS,
  };
}
