/** QEMU's command line. */
import { frontendArguments, type QemuFrontend } from "../../src/cli/qemu.ts";
import { run } from "../lib/process.ts";
import { programPath, QEMU_VERSIONS, qemuOfVersion } from "./programs.ts";
import { ToolError } from "../lib/tool_error.ts";

/**
 * The path of QEMU, which is downloaded when it is missing: the usual one, or the newest where that
 * lacks one of the devices.
 */
export async function qemuProgram(
  { qemu, machine = "q35", devices = [] }: MachineOptions = {},
): Promise<string> {
  if (qemu !== undefined) return qemu;
  const usual = await programPath("qemu-system-x86_64");
  for (const device of devices) {
    if (await deviceName(usual, device, machine) === undefined) {
      return await qemuOfVersion(QEMU_VERSIONS.at(-1)!);
    }
  }
  return usual;
}

/** The kinds of machine: `q35` has PCI, `microvm` has virtio-mmio only. */
export const MACHINES = ["q35", "microvm"] as const;

export type Machine = typeof MACHINES[number];

/** A virtio device that a vhost-user back-end serves. */
export interface GuestDevice {
  /** What QEMU calls it between `vhost-user-` and `-pci`, such as `blk`. */
  kind: string;
  /** QEMU's side of it. @default {the device that is called after `kind`} */
  frontend?: QemuFrontend;
  /** The socket by which QEMU and the back-end meet. */
  socketPath: string;
  /** QEMU listens on it, and waits for the back-end. @default {false} */
  isServer?: boolean;
  /** More properties of QEMU's device, such as `{ "num-queues": 2 }`. */
  qemuProperties?: Record<string, string | number | boolean>;
  /**
   * How long QEMU waits before it connects again to a back-end that went away, in milliseconds;
   * QEMU 9.2 and later. Without it, it never does.
   */
  reconnectMs?: number;
}

export interface MachineOptions {
  /** The path of QEMU. @default {what {@linkcode qemuProgram} finds} */
  qemu?: string;
  /** The kind of machine. @default {"q35"} */
  machine?: Machine;
  /** The size of memory, as QEMU takes it. @default {"256M"} */
  memory?: string;
  cpus?: number;
  /** The devices, in the order in which the guest sees them. */
  devices?: GuestDevice[];
  qemuArguments?: string[];
}

export interface BootFiles {
  kernel: string;
  /** The path of the initramfs, if there is one. */
  initrd?: string;
  commandLine: string;
}

/**
 * A q35 has a PS/2 keyboard, which would take the keys from a virtio one. QEMU 5.2 cannot leave it
 * out.
 */
async function withoutKeyboard(qemu: string, machine: Machine): Promise<string> {
  if (machine !== "q35") return "";
  return (await ask(qemu, "-machine", "q35,help")).includes("i8042=") ? ",i8042=off" : "";
}

const MICROVM_ARGUMENTS = [
  // Without this the MMIO devices are of the time before virtio 1.0.
  ...["-global", "virtio-mmio.force-legacy=false"],
  // The other firmware, SeaBIOS, drives a virtio disk itself, and on a microvm with buffers in
  // memory that no back-end sees: it waits for ever.
  ...["-bios", "qboot.rom"],
];

/** QEMU's arguments for a machine, but for its console. */
export async function machineArguments(
  options: MachineOptions,
  boot: BootFiles,
): Promise<string[]> {
  const { machine = "q35", memory = "256M", cpus = 1 } = options;
  const accelerator = hasKvm() ? ["kvm", "host"] : ["tcg", "max"];
  const given = options.devices ?? [];
  const qemu = await qemuProgram(options);
  const devices = await Promise.all(
    given.map((device, index) => qemuDeviceArguments(qemu, device, machine, `device${index}`)),
  );
  return [
    ...["-no-user-config", "-nodefaults", "-display", "none"],
    ...["-machine", `${machine},memory-backend=memory${await withoutKeyboard(qemu, machine)}`],
    ...["-accel", accelerator[0], "-cpu", accelerator[1]],
    ...["-smp", `${cpus}`, "-m", memory],
    // The back-ends see the guest's memory through this file.
    "-object",
    `memory-backend-memfd,id=memory,size=${memory},share=on`,
    ...machine === "microvm" ? MICROVM_ARGUMENTS : [],
    ...["-kernel", boot.kernel],
    ...boot.initrd === undefined ? [] : ["-initrd", boot.initrd],
    ...["-append", boot.commandLine],
    ...devices.flat(),
    ...options.qemuArguments ?? [],
  ];
}

async function qemuDeviceArguments(
  qemu: string,
  device: GuestDevice,
  machine: Machine,
  id: string,
): Promise<string[]> {
  const name = await deviceName(qemu, device, machine);
  if (!name) throw new ToolError(`This QEMU has no device ${frontendOf(device).name}`);
  const properties = Object.fromEntries(
    Object.entries(device.qemuProperties ?? {}).map(([key, value]) => [
      key,
      typeof value === "boolean" ? value ? "on" : "off" : value,
    ]),
  );
  const frontend = frontendOf(device);
  // An unpacked QEMU lacks the card's boot ROM.
  const rom: Record<string, string> = name === "virtio-net-pci" ? { romfile: "" } : {};
  const all = { ...frontend, properties: { ...rom, ...frontend.properties, ...properties } };
  const socket = [
    `socket,id=${id},path=${device.socketPath.replaceAll(",", ",,")}`,
    ...device.isServer ? ["server=on"] : [],
    ...device.reconnectMs === undefined ? [] : [`reconnect-ms=${device.reconnectMs}`],
  ];
  return ["-chardev", socket.join(","), ...frontendArguments(all, name, id)];
}

function frontendOf({ kind, frontend }: GuestDevice): QemuFrontend {
  return frontend ?? { name: `vhost-user-${kind}`, properties: {} };
}

/** What QEMU calls a device on the bus of a machine, or undefined when it has none. */
async function deviceName(
  qemu: string,
  device: GuestDevice,
  machine: Machine,
): Promise<string | undefined> {
  const { name } = frontendOf(device);
  const names = machine === "q35" ? [`${name}-pci`] : [`${name}-device`, name];
  const found = await Promise.all(names.map((name) => hasDevice(qemu, name)));
  return names[found.indexOf(true)];
}

/**
 * Whether QEMU has a device: the names differ between versions. The list that `-device help` prints
 * is no way to tell, since it loads every module that is installed, also one of another QEMU.
 */
async function hasDevice(qemu: string, name: string): Promise<boolean> {
  // It says on stderr that it has none, and calls that a success.
  return (await ask(qemu, "-device", `${name},help`)).startsWith(`${name} options`);
}

/** What a QEMU says of itself, asked once. */
function ask(qemu: string, ...args: string[]): Promise<string> {
  const key = [qemu, ...args].join(" ");
  const answer = answers.get(key) ?? run(qemu, args);
  answers.set(key, answer);
  return answer;
}

const answers = new Map<string, Promise<string>>();

/**
 * Whether guests can run on KVM. There are machines where `/dev/kvm` exists and opens and yet
 * guests hang; their processor has none of these flags.
 */
export function hasKvm(): boolean {
  try {
    using _ = Deno.openSync("/dev/kvm", { read: true, write: true });
    return /\b(vmx|svm)\b/.test(Deno.readTextFileSync("/proc/cpuinfo"));
  } catch {
    return false;
  }
}
