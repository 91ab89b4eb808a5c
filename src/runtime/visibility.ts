/**
 * What a back-end can see through a front-end. QEMU hides some actions of the guest's driver,
 * depending on QEMU's device class (QEMU 7.2 and 10.0: `hw/virtio/vhost-user*.c`,
 * `hw/block/vhost-user-blk.c`). The generic device of QEMU 11 serves every type and hides no access
 * to config space, so observed behaviour counts before the usual one of a type.
 *
 * @module
 */

/**
 * The source of a fact: `reported` by the front-end, `traced` by its process, `inferred` from its
 * actions, or `not observable` because this front-end hides it.
 */
export type Source = "reported" | "traced" | "inferred" | "not observable";

/** The source of a kind of facts, with its limits. */
export interface Visibility {
  /** The source. */
  source: Source;
  /** Its limits. */
  note: string;
}

/** The visibility of a device's facts with a front-end. */
export interface DeviceVisibility {
  configReads: Visibility;
  configWrites: Visibility;
  status: Visibility;
}

const reported = (note: string): Visibility => ({ source: "reported", note });
const inferred = (note: string): Visibility => ({ source: "inferred", note });
const hidden = (note: string): Visibility => ({ source: "not observable", note });

const GPU = 16, INPUT = 18, SOUND = 25, GPIO = 41, BLOCK = 2, VSOCK = 19; // virtio 1.3, 5

/** QEMU passes on every access to these devices, widened to the whole space. */
const WIDENED = [INPUT, SOUND, GPIO, GPU];

const QEMU_STATUS = inferred(
  "QEMU sends the status at feature negotiation, and for some devices at start and stop; it sets ACKNOWLEDGE and DRIVER itself",
);

/** The behaviour of a front-end in its connection. */
export interface FrontendConduct {
  /** The command name of its process; null if unknown. */
  command: string | null;
  /** It acknowledged the protocol feature CONFIG: it may ask for config space. */
  takesConfig: boolean;
  /** Number of its reads of config space. */
  configReads: number;
  /** Number of its writes to config space. */
  configWrites: number;
  /** Number of announced changes of config space. */
  announcements: number;
}

/** The visibility of a device type, given the behaviour of its front-end so far. */
export function visibilityOf(deviceId: number, conduct: FrontendConduct): DeviceVisibility {
  const { command, takesConfig, configReads, configWrites, announcements } = conduct;
  if (command === null || !command.startsWith("qemu-system")) {
    const note = command === null
      ? "as the messages say; the front-end is not known"
      : `as the messages of ${command} say`;
    return { configReads: reported(note), configWrites: reported(note), status: reported(note) };
  }
  const isCached = deviceId === BLOCK || deviceId === VSOCK;
  // A front-end that answers from a copy reads once, and once more after each change
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

/** The visibility where a watch traces the front-end's process. */
export function visibleInTrace({ lost }: { lost: number }): DeviceVisibility {
  const note = "the trace of the front-end's process has each access of the driver" +
    (lost > 0 ? `, except for at least ${lost} that were lost` : "");
  const traced: Visibility = { source: "traced", note };
  return { configReads: traced, configWrites: traced, status: traced };
}
