/**
 * The names and arguments of QEMU and libvirt for devices.
 *
 * @module
 */

import { SHARED_MEMORY_ARGUMENTS } from "../runtime/notices.ts";
import type { AnyDevice } from "../virtio/mod.ts";

/** The names of QEMU and libvirt for a device type. */
interface QemuNames {
  /** The type in QEMU's `docs/interop/vhost-user.json`; by default the device's own name. */
  type?: string;
  /** QEMU's `-device` for such a back-end, without the bus. */
  frontend?: string;
  /** The oldest QEMU that is known to have it, if newer than 5.2. */
  since?: string;
  /** Features that it hides from the driver, and that no driver can do without. */
  hides?: readonly string[];
}

/** By the device type's number: virtio 1.3, 5. */
const NAMES: Readonly<Record<number, QemuNames>> = {
  1: { type: "net", frontend: "virtio-net" },
  2: { type: "block", frontend: "vhost-user-blk", hides: ["ZONED"] },
  4: { type: "rng", frontend: "vhost-user-rng", since: "7.2" },
  8: { type: "scsi", frontend: "vhost-user-scsi" },
  16: { type: "gpu", frontend: "vhost-user-gpu" },
  17: { frontend: "vhost-user-rtc", since: "11.1" },
  18: { type: "input", frontend: "vhost-user-input" },
  19: { type: "vsock", frontend: "vhost-user-vsock" },
  20: { type: "crypto", frontend: "virtio-crypto" },
  25: { type: "sound", frontend: "vhost-user-snd", since: "9.0" },
  26: { type: "fs", frontend: "vhost-user-fs" },
  32: { type: "scmi" },
  34: { type: "i2c", frontend: "vhost-user-i2c", since: "7.2" },
  41: { type: "gpio", frontend: "vhost-user-gpio", since: "7.2" },
  45: { frontend: "vhost-user-spi", since: "11.1" },
};

/**
 * QEMU's device for a back-end of any type. For a type that QEMU has no name for, QEMU ends with an
 * assertion (`virtio_device_names` in `hw/virtio/virtio.c`).
 */
const GENERIC = { frontend: "vhost-user-test-device", since: "11.1" } as const;

/** Whether the generic device of QEMU 11.1.3 takes a type; each was tried. */
function isKnownToQemu(deviceId: number): boolean {
  return deviceId >= 1 && deviceId <= 41 && deviceId !== 14 && deviceId !== 15 || deviceId === 45;
}

const NET = 1, BLOCK = 2, SCSI = 8, CRYPTO = 20, FS = 26;

/** Options that are features in the schema, by type. */
const FEATURE_OPTIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  block: { readOnly: "read-only", blkFile: "blk-file" },
  input: { evdevPath: "evdev-path", noGrab: "no-grab" },
  gpu: { renderNode: "render-node", virgl: "virgl" },
};

/** The type of a device in QEMU's `docs/interop/vhost-user.json`. */
function backendType(device: AnyDevice): string {
  return NAMES[device.deviceId]?.type ?? device.name;
}

/** The output of `--print-capabilities`: `VHostUserBackendCapabilities` of the schema. */
export function capabilities(device: AnyDevice): { type: string; features?: string[] } {
  const type = backendType(device);
  const options = FEATURE_OPTIONS[type];
  if (options === undefined) return { type };
  const features = Object.entries(options)
    .filter(([option]) => option in (device.options ?? {})).map(([, feature]) => feature);
  return { type, features };
}

/** The content of a file in `share/qemu/vhost-user`: `VhostUserBackend` of the schema. */
export function libvirtDescription(
  device: AnyDevice,
  binary: string,
  version: string,
): { description: string; type: string; binary: string; tags: string[] } {
  return {
    description: `vhostd ${device.name}: ${device.about}`,
    type: backendType(device),
    binary,
    tags: [`vhostd ${version}`],
  };
}

/** QEMU's side of a device. */
export interface QemuFrontend {
  /** The `-device`, without the bus: `-pci` is added for PCI. */
  name: string;
  /** Its properties, without the connection to the back-end. */
  properties: Record<string, string | number>;
  /** The object between the `-device` and the `-chardev`, with its properties. */
  link?: { option: string; type: string; property: string; queues: number };
  /** The oldest QEMU that is known to have it, if it is newer than 5.2. */
  since?: string;
}

/** The facts of a device that decide about QEMU's side of it. */
export interface QemuSubject {
  /** The device's name. */
  name: string;
  /** The number of its type. */
  deviceId: number;
  /** Size of its config space, in bytes. */
  configBytes: number;
  /** Number of its queues. */
  queues: number;
  /** The names of the features that it offers, where they are known. */
  offered?: readonly string[];
}

/** QEMU's side of a device; undefined if no QEMU has one. */
export function qemuFrontend(subject: QemuSubject): QemuFrontend | undefined {
  const { name, deviceId, configBytes, queues, offered } = subject;
  const { frontend, since, hides } = NAMES[deviceId] ?? {};
  if (frontend === undefined || hides?.some((feature) => offered?.includes(feature))) {
    if (!isKnownToQemu(deviceId) || queues === 0) return undefined;
    return {
      name: GENERIC.frontend,
      since: GENERIC.since,
      properties: { "virtio-id": deviceId, num_vqs: queues, config_size: configBytes },
    };
  }
  const known = { name: frontend, since, properties: {} };
  switch (deviceId) {
    case NET: {
      const pairs = Math.max(1, queues >> 1);
      return {
        ...known,
        properties: pairs > 1 ? { mq: "on", vectors: 2 * pairs + 2 } : {},
        link: { option: "netdev", type: "vhost-user", property: "netdev", queues: pairs },
      };
    }
    case CRYPTO:
      return {
        ...known,
        link: { option: "object", type: "cryptodev-vhost-user", property: "cryptodev", queues },
      };
    // By default QEMU wants a queue per virtual CPU, and refuses a back-end with fewer
    case BLOCK:
      return { ...known, properties: { "num-queues": queues } };
    case SCSI: // two more, for control and events: virtio 1.3, 5.6.2
      return { ...known, properties: { num_queues: Math.max(1, queues - 2) } };
    case FS: // one more, of high priority: virtio 1.3, 5.11.2
      return { ...known, properties: { tag: name, "num-request-queues": Math.max(1, queues - 1) } };
    default:
      return known;
  }
}

/**
 * The arguments of QEMU for its side of a device.
 *
 * @param name QEMU's name of the device with its bus, such as `vhost-user-blk-pci`.
 * @param id The id of the `-chardev`.
 * @param offered The names of the features that the device offers.
 */
export function frontendArguments(
  { link, properties }: QemuFrontend,
  name: string,
  id: string,
): string[] {
  const given = Object.entries(properties).map(([key, value]) => `${key}=${value}`);
  if (link === undefined) return ["-device", [name, `chardev=${id}`, ...given].join(",")];
  const between = `${link.type},id=${id}-${link.property},chardev=${id}` +
    (link.queues > 1 ? `,queues=${link.queues}` : "");
  const device = [name, `${link.property}=${id}-${link.property}`, ...given].join(",");
  return [`-${link.option}`, between, "-device", device];
}

/** The message for a type that no QEMU has a device for. */
export function unknownToQemu(deviceId: number): string {
  return `no QEMU has a front-end for virtio device ${deviceId} (the generic one of ` +
    `${GENERIC.since} takes 1 to 13, 16 to 41 and 45, with a queue or more)`;
}

/**
 * The hint for a device on a socket: QEMU's arguments that connect a guest to it, and the QEMU that
 * has them.
 *
 * @param queues Number of queues of the device.
 * @param isServer Whether QEMU listens, rather than the device.
 * @param id The id of the `-chardev`.
 */
export function qemuHint(
  device: AnyDevice,
  path: string,
  queues: number,
  isServer = false,
  id = device.name,
  offered: readonly string[] = [],
): string {
  const { name, deviceId } = device;
  const configBytes = device.config?.size ?? 0;
  const frontend = qemuFrontend({ name, deviceId, configBytes, queues, offered });
  if (frontend === undefined) return unknownToQemu(deviceId);
  // QEMU's options double a comma
  const place = `path=${path.replaceAll(",", ",,")}${isServer ? ",server=on" : ""}`;
  const args = [
    ...["-chardev", `socket,id=${id},${place}`],
    ...frontendArguments(frontend, `${frontend.name}-pci`, id),
  ].map(shellWord).join(" ");
  const version = frontend.since === undefined ? "" : ` ${frontend.since} or later`;
  return `QEMU${version}: ${args} ${SHARED_MEMORY_ARGUMENTS} ` +
    "(SIZE is that of -m: guest memory must be shared)";
}

/** A word for the shell, quoted if necessary. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
