/**
 * QEMU's command line.
 *
 * @module
 */

import { GuestError, run } from "./process.ts";

/** The program. */
export const QEMU = "qemu-system-x86_64";

/** The kinds of machine: `q35` has PCI, `microvm` has virtio-mmio only. */
export const MACHINES = ["q35", "microvm"] as const;

/** A kind of machine. */
export type Machine = typeof MACHINES[number];

/** A virtio device that a vhost-user back-end serves. */
export interface GuestDevice {
  /** What QEMU calls it between `vhost-user-` and `-pci`, such as `blk`. */
  kind: string;
  /** The socket on which the back-end listens. */
  socketPath: string;
  /** More properties of QEMU's device, such as `{ "num-queues": 2 }`. */
  qemuProperties?: Record<string, string | number | boolean>;
}

/** What the machine is made of. */
export interface MachineOptions {
  /** The kind of machine. @default {"q35"} */
  machine?: Machine;
  /** The size of memory, as QEMU takes it. @default {"256M"} */
  memory?: string;
  /** The number of processors. @default {1} */
  cpus?: number;
  /** The devices, in the order in which the guest sees them. */
  devices?: GuestDevice[];
  /** More arguments for QEMU. */
  qemuArguments?: string[];
}

/** What the machine boots. */
export interface BootFiles {
  /** The path of the kernel. */
  kernel: string;
  /** The path of the initramfs, if there is one. */
  initrd?: string;
  /** The kernel's command line. */
  commandLine: string;
}

/** QEMU's arguments for a machine, but for its console. */
export async function machineArguments(
  options: MachineOptions,
  boot: BootFiles,
): Promise<string[]> {
  const { machine = "q35", memory = "256M", cpus = 1 } = options;
  const accelerator = hasKvm() ? ["kvm", "host"] : ["tcg", "max"];
  const devices = await Promise.all(
    (options.devices ?? []).map((device, index) =>
      qemuDeviceArguments(device, machine, `device${index}`)
    ),
  );
  return [
    ...["-no-user-config", "-nodefaults", "-display", "none"],
    ...["-machine", `${machine},memory-backend=memory`],
    ...["-accel", accelerator[0], "-cpu", accelerator[1]],
    ...["-smp", `${cpus}`, "-m", memory],
    // The back-ends see the guest's memory through this file.
    "-object",
    `memory-backend-memfd,id=memory,size=${memory},share=on`,
    // Without this the MMIO devices are of the time before virtio 1.0.
    ...machine === "microvm" ? ["-global", "virtio-mmio.force-legacy=false"] : [],
    ...["-kernel", boot.kernel],
    ...boot.initrd === undefined ? [] : ["-initrd", boot.initrd],
    ...["-append", boot.commandLine],
    ...devices.flat(),
    ...options.qemuArguments ?? [],
  ];
}

/** QEMU's arguments for one device. */
export async function qemuDeviceArguments(
  device: GuestDevice,
  machine: Machine,
  id: string,
): Promise<string[]> {
  const base = `vhost-user-${device.kind}`;
  const names = machine === "q35" ? [`${base}-pci`] : [`${base}-device`, base];
  const known = await qemuDevices();
  const name = names.find((name) => known.has(name));
  if (!name) {
    throw new GuestError(
      `This QEMU has no device ${names.at(-1)}; see ${QEMU} -device help`,
    );
  }
  const properties = Object.entries(device.qemuProperties ?? {}).map((
    [key, value],
  ) => `${key}=${typeof value === "boolean" ? value ? "on" : "off" : value}`);
  return [
    "-chardev",
    `socket,id=${id},path=${device.socketPath.replaceAll(",", ",,")}`,
    "-device",
    [name, `chardev=${id}`, ...properties].join(","),
  ];
}

let devices: Promise<Set<string>> | undefined;

/** The names of the devices that QEMU has: they differ between versions. */
function qemuDevices(): Promise<Set<string>> {
  return devices ??= run(QEMU, ["-device", "help"]).then((help) =>
    new Set(Array.from(help.matchAll(/^name "([^"]+)"/gm), ([, name]) => name))
  );
}

/**
 * Whether guests can run on KVM. There are machines where `/dev/kvm` exists and
 * opens and yet guests hang; their processor has none of these flags.
 */
export function hasKvm(): boolean {
  try {
    using _ = Deno.openSync("/dev/kvm", { read: true, write: true });
    return /\b(vmx|svm)\b/.test(Deno.readTextFileSync("/proc/cpuinfo"));
  } catch {
    return false;
  }
}
