/** The command line of `deno task guest`. */
import { OptionError } from "../../src/virtio/options.ts";
import { defineTool, type ToolArguments } from "../lib/tool.ts";
import { MACHINES } from "./qemu.ts";

const OPTIONS = {
  image: {
    type: "text",
    placeholder: "PATH|URI",
    about: "your own disk image as root disk, or one elsewhere, as vhostd blk takes it (nbd:…, " +
      "rbd:…, https:…); it is used in place, and what the guest writes stays in it. Without this " +
      "option the root disk is a small system in a throw-away copy",
  },
  overlay: {
    type: "text",
    placeholder: "PATH",
    about: "keeps what the guest writes in this file, and leaves the --image as it is",
  },
  kernel: {
    type: "text",
    placeholder: "PATH",
    about: "your own kernel, which then needs no modules or an --initrd; Debian's by default",
  },
  initrd: {
    type: "text",
    placeholder: "PATH",
    about: "your own initramfs; one that loads the virtio drivers, for Debian's kernel, by default",
  },
  append: {
    type: "text",
    placeholder: "WORDS",
    about: 'more words for the kernel\'s command line, such as "loglevel=7", or "root=/dev/vda1" ' +
      "for an image with partitions",
  },
  memory: {
    type: "text",
    placeholder: "SIZE",
    default: "256M",
    about: "the size of memory, such as 512M or 2G",
  },
  cpus: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 255,
    default: 1,
    about: "the number of processors",
  },
  machine: {
    type: "text",
    placeholder: "NAME",
    choices: MACHINES,
    default: "q35",
    about: "q35 has devices on PCI, microvm on MMIO",
  },
  device: {
    type: "text",
    placeholder: '"NAME FLAGS"',
    each: true,
    about:
      "a device of vhostd with its flags, split at spaces; may be given many times. NAME can " +
      "be the path of a module of your own, such as ./my_rng.ts. It takes the place of the " +
      "default device of that name or type. A blk without a store of its own (PATH, --blk-file, " +
      '--size, --null) is the root disk. By default: blk, rng, "input --profile=keyboard", ' +
      '"net --user"',
  },
  without: {
    type: "text",
    placeholder: "NAME",
    each: true,
    about: "leaves a default device out; without a root disk the guest stays in its initramfs, " +
      "which has a shell too; may be given many times",
  },
  file: {
    type: "text",
    placeholder: "PATH",
    each: true,
    about: "a file or folder to copy to the guest's /root; may be given many times",
  },
  run: {
    type: "text",
    placeholder: "COMMAND",
    about: "runs a command in the guest in place of the shell, prints its output and exits with " +
      "its status. With --image it runs in place of the image's init",
  },
  noWatch: {
    type: "flag",
    about: "leaves QEMU's trace off, by which the records show each access of the guest's drivers",
  },
  web: {
    type: "flag",
    about: "shows the devices live in a browser, at the URL that it prints (vhostd web --control)",
  },
  print: { type: "flag", about: "prints the commands instead of running them" },
} as const;

export const GUEST = defineTool({
  name: "guest",
  usage: "[options] [-- QEMU arguments]",
  about: "Boots a real Linux guest whose virtio devices are vhostd's.\n",
  options: OPTIONS,
  notes: `\
The guest has the network that you have, by passt: what this machine reaches, and
this machine itself.

In the guest's console, Ctrl-A X ends QEMU, Ctrl-A C is its monitor, and Ctrl-A H
says what else there is. At the end, vhostd's record of each device is printed.
What had to be downloaded or made is kept in .cache/guest; remove it to renew it.

Examples:
  deno task guest
  deno task guest --machine=microvm --run="cat /proc/interrupts"
  deno task guest --device="blk --num-queues=4" --cpus=4
  deno task guest --device=blk --device="blk --null --size=1G"
  deno task guest --device="net --user --forward=2222:22"
  deno task guest --without=net
  deno task guest --image=nbd://server/debian --overlay=delta.img
  deno task guest --file=script.sh --run="sh script.sh"
  deno task guest --web
  deno task guest --device=./my_rng.ts --run="head -c 16 /dev/hwrng | xxd"
`,
  check: checkOptions,
});

export type Options = ReturnType<typeof GUEST.check>;

/** A device and its flags, as the user gave them. */
export interface DeviceOption {
  /** The device's name, such as `blk`, or the path of its module. */
  name: string;
  flags: string[];
  /** The user did not ask for it: one of the same type takes its place. */
  isDefault?: boolean;
}

const DEFAULT_DEVICES: DeviceOption[] = [
  { name: "blk", flags: [], isDefault: true },
  { name: "rng", flags: [], isDefault: true },
  { name: "input", flags: ["--profile=keyboard"], isDefault: true },
  { name: "net", flags: ["--user"], isDefault: true },
];

/** Flags of blk that say what it stores on. */
const STORE_FLAGS = ["--blk-file", "--size", "--null"];

function checkOptions({ values, rest }: ToolArguments<typeof OPTIONS>) {
  const { memory, device, without } = values;
  if (!/^[1-9]\d{0,6}[MG]$/.test(memory)) {
    throw new OptionError(`--memory=${memory}: expected a size such as 512M or 2G`);
  }
  if (values.overlay !== undefined && values.image === undefined) {
    throw new OptionError("--overlay is for an --image; without one, nothing is kept");
  }
  const own = (["image", "kernel", "initrd"] as const).find((name) => values[name] !== undefined);
  if (values.file.length > 0 && own !== undefined) {
    throw new OptionError(`--file is for the small system; leave out --file or --${own}`);
  }
  return { ...values, devices: chooseDevices(device, without), qemuArguments: rest };
}

/** Whether a device is the disk that the guest boots from. */
export function isRootDisk({ name, flags }: DeviceOption): boolean {
  return name === "blk" &&
    !flags.some((flag, i) =>
      STORE_FLAGS.includes(flag.split("=")[0]) || isPath(flag, flags[i - 1])
    );
}

/** Whether a word of a blk is its PATH, and not the value of the flag before it. */
function isPath(word: string, before = ""): boolean {
  return !word.startsWith("-") && !/^--(?!read-only$)[^=]+$/.test(before);
}

/** The number of queues that a device was told to have of the kind that may be many; else one. */
export function queueCount({ flags }: DeviceOption): number {
  const flag = flags.findLast((flag) => /^--(num-queues|queue-pairs)=/.test(flag));
  return Number(flag?.split("=")[1] ?? 1);
}

function chooseDevices(given: readonly string[], without: readonly string[]): DeviceOption[] {
  const own = given.map((text): DeviceOption => {
    const [name, ...flags] = text.split(/\s+/).filter((word) => word);
    if (!name || name.startsWith("-")) {
      throw new OptionError(`--device="${text}" has no device; expected "NAME FLAGS"`);
    }
    return { name, flags };
  });
  for (const name of without) {
    if (!DEFAULT_DEVICES.some((device) => device.name === name)) {
      throw new OptionError(`--without=${name}: no default device is a ${name}`);
    }
  }
  const defaults = DEFAULT_DEVICES.filter(({ name }) =>
    !without.includes(name) && !own.some((device) => device.name === name)
  );
  const devices = [...defaults, ...own];
  if (devices.filter(isRootDisk).length > 1) {
    throw new OptionError(
      "Only one blk can be the root disk; give the others a store, " +
        'such as --device="blk --null --size=1G"',
    );
  }
  return devices;
}
