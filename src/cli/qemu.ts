/**
 * How QEMU and libvirt call devices.
 *
 * @module
 */

import type { AnyDevice } from "../virtio/mod.ts";

/** What QEMU calls a device type. */
interface QemuNames {
  /** The type in QEMU's `docs/interop/vhost-user.json`, or the device's own name where it has none. */
  type: string;
  /** The `-device` that has a back-end of this type on PCI. */
  device: string;
}

/** By the device type's number: virtio 1.3, 5. */
const NAMES: Readonly<Record<number, QemuNames>> = {
  2: { type: "block", device: "vhost-user-blk-pci" },
  4: { type: "rng", device: "vhost-user-rng-pci" },
  8: { type: "scsi", device: "vhost-user-scsi-pci" },
  16: { type: "gpu", device: "vhost-user-gpu-pci" },
  18: { type: "input", device: "vhost-user-input-pci" },
  19: { type: "vsock", device: "vhost-user-vsock-pci" },
  25: { type: "sound", device: "vhost-user-snd-pci" },
  26: { type: "fs", device: "vhost-user-fs-pci" },
  32: { type: "scmi", device: "vhost-user-scmi-pci" },
  34: { type: "i2c", device: "vhost-user-i2c-pci" },
  41: { type: "gpio", device: "vhost-user-gpio-pci" },
};

const BLOCK = 2, NET = 1, CRYPTO = 20;

/** The options that the schema calls features, by type. */
const FEATURE_OPTIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  block: { readOnly: "read-only", blkFile: "blk-file" },
  input: { evdevPath: "evdev-path", noGrab: "no-grab" },
  gpu: { renderNode: "render-node", virgl: "virgl" },
};

/** The type of a device in QEMU's `docs/interop/vhost-user.json`. */
export function backendType(device: AnyDevice): string {
  return NAMES[device.deviceId]?.type ?? device.name;
}

/** What `--print-capabilities` prints: `VHostUserBackendCapabilities` of the schema. */
export function capabilities(device: AnyDevice): { type: string; features?: string[] } {
  const type = backendType(device);
  const options = FEATURE_OPTIONS[type];
  if (options === undefined) return { type };
  const features = Object.entries(options)
    .filter(([option]) => option in (device.options ?? {})).map(([, feature]) => feature);
  return { type, features };
}

/** What a file in `share/qemu/vhost-user` holds: `VhostUserBackend` of the schema. */
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

/**
 * The arguments of QEMU that connect a guest to a device on a socket.
 *
 * @param queues How many queues the device has.
 * @param isServer Whether QEMU listens, rather than the device.
 */
export function qemuArguments(
  device: AnyDevice,
  path: string,
  queues: number,
  isServer = false,
): string {
  const id = device.name;
  // In QEMU's options a comma is doubled.
  const place = `path=${path.replaceAll(",", ",,")}${isServer ? ",server=on" : ""}`;
  const chardev = shellWord(`socket,id=${id},${place}`);
  return `-chardev ${chardev} ${frontend(device, id, queues)}`;
}

function frontend(device: AnyDevice, id: string, queues: number): string {
  if (device.deviceId === NET) {
    return `-netdev vhost-user,id=${id}-net,chardev=${id} -device virtio-net-pci,netdev=${id}-net`;
  }
  if (device.deviceId === CRYPTO) {
    return `-object cryptodev-vhost-user,id=${id}-dev,chardev=${id} ` +
      `-device virtio-crypto-pci,cryptodev=${id}-dev`;
  }
  const known = NAMES[device.deviceId];
  if (known === undefined) { // QEMU 11
    return `-device vhost-user-test-device-pci,chardev=${id},virtio-id=${device.deviceId},` +
      `num_vqs=${queues},config_size=${device.config?.size ?? 0}`;
  }
  // QEMU wants a queue per virtual CPU unless it is told, and refuses a back-end that has fewer.
  const count = device.deviceId === BLOCK ? `,num-queues=${queues}` : "";
  return `-device ${known.device},chardev=${id}${count}`;
}

/** A word for the shell, quoted if it needs that. */
function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
