/**
 * What a front-end lets a back-end see. QEMU hides some of what the guest's driver does, and how
 * much depends on which of QEMU's devices it is (read in QEMU 7.2 and 10.0:
 * `hw/virtio/vhost-user*.c`, `hw/block/vhost-user-blk.c`). The generic device of QEMU 11 serves
 * every type and hides nothing of config space, so what the front-end is seen to do comes before
 * what its kind usually does.
 *
 * @module
 */

/**
 * How something is known: `reported`, the front-end said it; `inferred`, it follows from what the
 * front-end did; `not observable`, this front-end hides it.
 */
export type Source = "reported" | "inferred" | "not observable";

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

/** What a front-end has done in its connection. */
export interface FrontendConduct {
  /** The command name of its process; null where that is not known. */
  command: string | null;
  /** It took the protocol feature CONFIG: it asks the device for config space at all. */
  takesConfig: boolean;
  /** How often it read config space. */
  configReads: number;
  /** How often it wrote config space. */
  configWrites: number;
  /** How often it was told that config space changed. */
  announcements: number;
}

/** What can be seen of a device type, given what its front-end has done so far. */
export function visibilityOf(deviceId: number, conduct: FrontendConduct): DeviceVisibility {
  const { command, takesConfig, configReads, configWrites, announcements } = conduct;
  if (command === null || !command.startsWith("qemu-system")) {
    const note = command === null
      ? "as the messages say; the front-end is not known"
      : `as the messages of ${command} say`;
    return { configReads: reported(note), configWrites: reported(note), status: reported(note) };
  }
  const isCached = deviceId === BLOCK || deviceId === VSOCK;
  // One that answers from a copy reads once, and once more after each change.
  const isSeenPassingOn = configReads > 1 + announcements;
  if (WIDENED.includes(deviceId) || isSeenPassingOn || takesConfig && !isCached) {
    return {
      configReads: reported("QEMU passes on each of the driver's reads, as one of the whole space"),
      configWrites: reported(
        "QEMU passes on each of the driver's writes, as one of the whole space",
      ),
      status: QEMU_STATUS,
    };
  }
  if (isCached) {
    return {
      configReads: inferred(
        deviceId === BLOCK
          ? "QEMU reads the first 57 bytes itself, whatever is offered, and answers the driver from its copy"
          : "QEMU reads the space itself and answers the driver from its copy",
      ),
      configWrites: deviceId === BLOCK
        ? reported("QEMU passes on a change of the writeback byte, and nothing else")
        : writes("QEMU passes on no write of this device"),
      status: QEMU_STATUS,
    };
  }
  return {
    configReads: configReads > 0
      ? reported("QEMU passes on reads of this device")
      : hidden("QEMU makes the config space of this device itself"),
    configWrites: writes("QEMU makes the config space of this device itself"),
    status: QEMU_STATUS,
  };

  function writes(whyHidden: string): Visibility {
    return configWrites > 0 ? reported("QEMU passes on writes of this device") : hidden(whyHidden);
  }
}
