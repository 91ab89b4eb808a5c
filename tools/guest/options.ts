/**
 * The command line of `deno task guest`.
 *
 * @module
 */

import { parseArgs } from "@std/cli";
import { GuestError } from "./process.ts";
import { type Machine, MACHINES } from "./qemu.ts";

/** What `--help` prints. */
export const HELP = `\
Boots a real Linux guest whose virtio devices are vhostd's.

Usage: deno task guest [options] [-- QEMU arguments]

  --image=PATH     your own disk image as root disk; it is used in place, and
                   what the guest writes stays in it. Without this option the
                   root disk is a small system in a throw-away copy
  --kernel=PATH    your own kernel, which then needs no modules or an --initrd
                   (default: Debian's)
  --initrd=PATH    your own initramfs (default: one that loads the virtio
                   drivers, for Debian's kernel)
  --append=WORDS   more words for the kernel's command line, such as
                   "loglevel=7", or "root=/dev/vda1" for an image with partitions
  --memory=SIZE    such as 512M or 2G (default: 256M)
  --cpus=N         number of processors (default: 1)
  --machine=NAME   q35 (devices on PCI) or microvm (on MMIO) (default: q35)
  --device="NAME FLAGS"
                   a device of vhostd with its flags, split at spaces; may be
                   given many times. NAME can be the path of a module of your
                   own, such as ./my_rng.ts. It takes the place of the default
                   device of that name or type. A blk without a store of its own
                   (--blk-file, --size, --null) is the root disk
                   (default: blk, rng, "input --profile=keyboard")
  --without=NAME   leaves a default device out; without a root disk the guest
                   stays in its initramfs, which has a shell too
  --run=COMMAND    runs a command in the guest in place of the shell, prints its
                   output and exits with its status. With --image it runs in
                   place of the image's init
  --print          prints the commands instead of running them
  --help           prints this

In the guest's console, Ctrl-A X ends QEMU, Ctrl-A C is its monitor, and Ctrl-A H
says what else there is. At the end, vhostd's record of each device is printed.
What had to be downloaded or made is kept in .cache/guest; remove it to renew it.

Examples:
  deno task guest
  deno task guest --machine=microvm --run="cat /proc/interrupts"
  deno task guest --device="blk --num-queues=4" --cpus=4
  deno task guest --device=blk --device="blk --null --size=1G"
  deno task guest --device=./my_rng.ts --run="head -c 16 /dev/hwrng | xxd"
`;

/** A device and its flags, as the user gave them. */
export interface DeviceOption {
  /** The device's name, such as `blk`, or the path of its module. */
  name: string;
  /** The flags for `vhostd NAME`. */
  flags: string[];
  /** Nobody asked for it: one of the same type takes its place. */
  isDefault?: boolean;
}

/** The command line, checked. What it means is in {@linkcode HELP}. */
export interface Options {
  /** Whether to print the help. */
  help: boolean;
  /** Whether to print the commands instead of running them. */
  print: boolean;
  /** The path of a disk image of the user's own. */
  image?: string;
  /** The path of a kernel of the user's own. */
  kernel?: string;
  /** The path of an initramfs of the user's own. */
  initrd?: string;
  /** More words for the kernel. */
  append?: string;
  /** The command to run in the guest. */
  run?: string;
  /** The size of memory. */
  memory?: string;
  /** The number of processors. */
  cpus?: number;
  /** The kind of machine. */
  machine: Machine;
  /** The devices, with the default ones. */
  devices: DeviceOption[];
  /** More arguments for QEMU. */
  qemuArguments: string[];
}

const DEFAULT_DEVICES: DeviceOption[] = [
  { name: "blk", flags: [], isDefault: true },
  { name: "rng", flags: [], isDefault: true },
  { name: "input", flags: ["--profile=keyboard"], isDefault: true },
];

/** Flags of blk that say what it stores on. */
const STORE_FLAGS = ["--blk-file", "--size", "--null"];

/**
 * Reads the command line.
 *
 * @throws {GuestError} When something in it is wrong.
 */
export function parseOptions(args: string[]): Options {
  const parsed = parseArgs(args, {
    boolean: ["help", "print"],
    string: [
      ...["image", "kernel", "initrd", "append", "run"],
      ...["memory", "cpus", "machine", "device", "without"],
    ],
    collect: ["device", "without"],
    "--": true,
    unknown(arg: string): never {
      throw new GuestError(`Unknown argument ${arg}; see --help`);
    },
  });
  const text = (name: string): string | undefined => {
    const value: string | undefined = parsed[name];
    if (value === "") throw new GuestError(`--${name} needs a value`);
    return value;
  };
  return {
    help: parsed.help,
    print: parsed.print,
    image: text("image"),
    kernel: text("kernel"),
    initrd: text("initrd"),
    append: text("append"),
    run: text("run"),
    memory: parseMemory(text("memory")),
    cpus: parseCpus(text("cpus")),
    machine: parseMachine(text("machine")),
    devices: chooseDevices(parsed.device, parsed.without),
    qemuArguments: parsed["--"] ?? [],
  };
}

/** Whether a device is the disk that the guest boots from. */
export function isRootDisk({ name, flags }: DeviceOption): boolean {
  return name === "blk" &&
    !flags.some((flag) => STORE_FLAGS.includes(flag.split("=")[0]));
}

/** The number of queues that a device was told to have of the kind that may be many; else one. */
export function queueCount({ flags }: DeviceOption): number {
  const flag = flags.findLast((flag) => flag.startsWith("--num-queues="));
  return Number(flag?.split("=")[1] ?? 1);
}

function chooseDevices(given: string[], without: string[]): DeviceOption[] {
  const own = given.map((text): DeviceOption => {
    const [name, ...flags] = text.split(/\s+/).filter((word) => word);
    if (!name || name.startsWith("-")) {
      throw new GuestError(
        `--device="${text}" has no device; expected "NAME FLAGS"`,
      );
    }
    return { name, flags };
  });
  for (const name of without) {
    if (!DEFAULT_DEVICES.some((device) => device.name === name)) {
      throw new GuestError(`--without=${name}: no default device is a ${name}`);
    }
  }
  const defaults = DEFAULT_DEVICES.filter(({ name }) =>
    !without.includes(name) && !own.some((device) => device.name === name)
  );
  const devices = [...defaults, ...own];
  if (devices.filter(isRootDisk).length > 1) {
    throw new GuestError(
      "Only one blk can be the root disk; give the others a store, " +
        'such as --device="blk --null --size=1G"',
    );
  }
  return devices;
}

function parseMemory(text: string | undefined): string | undefined {
  if (text === undefined || /^[1-9]\d{0,6}[MG]$/.test(text)) return text;
  throw new GuestError(`--memory=${text}: expected a size such as 512M or 2G`);
}

function parseCpus(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const cpus = Number(text);
  if (Number.isInteger(cpus) && cpus >= 1 && cpus <= 255) return cpus;
  throw new GuestError(`--cpus=${text}: expected a number from 1 to 255`);
}

function parseMachine(text = "q35"): Machine {
  const machine = MACHINES.find((name) => name === text);
  if (machine) return machine;
  throw new GuestError(`--machine=${text}: expected ${MACHINES.join(" or ")}`);
}
