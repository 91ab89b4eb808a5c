/** What is to be started for a guest, with every path decided. */
import { type QemuFrontend, qemuFrontend, unknownToQemu } from "../../src/cli/qemu.ts";
import type { DeviceDescription } from "../../src/cli/describe_text.ts";
import { vhostdCommand } from "../lib/backend.ts";
import { output } from "../lib/process.ts";
import { bootFiles, type GuestOptions } from "./guest.ts";
import { filesCommand, type GivenFiles, initrdWith } from "./files.ts";
import { type DeviceOption, isRootDisk, type Options, queueCount } from "./options.ts";
import { type GuestDevice, machineArguments, qemuProgram } from "./qemu.ts";
import { programPath } from "./programs.ts";
import { progress } from "./progress.ts";
import { rootImage } from "./root_image.ts";
import { TERMINAL_ARGUMENTS } from "./terminal.ts";
import { ToolError } from "../lib/tool_error.ts";

/** A device, and the files of its back-end. */
export interface ServedDevice {
  /** The device's name, such as `blk`, or the path of its module. */
  name: string;
  flags: string[];
  frontend: QemuFrontend;
  /** The user did not ask for it: without it the guest starts all the same. */
  isOptional: boolean;
  /** The socket on which its back-end listens. */
  socketPath: string;
  recordPath: string;
  controlPath: string;
}

/** What is to be started. Nothing of it exists yet. */
export interface Plan {
  /** The directory of the sockets and of everything else that goes at the end. */
  directory: string;
  /** The image to copy, and where to, if the root disk is a throw-away one. */
  copy?: { from: string; to: string };
  /** Files to copy to the guest. */
  files?: GivenFiles;
  served: ServedDevice[];
  /** The directory of passt, where that is not on PATH. */
  passt?: string;
  guest: GuestOptions;
  /** Whether QEMU's trace completes the records: not where the user sends its log elsewhere. */
  isWatched: boolean;
  /** Whether a page shows the devices. */
  isOnWeb: boolean;
}

/** Decides what is to be started; makes the root image when it is missing. */
export async function makePlan(options: Options): Promise<Plan> {
  const rootDisk = options.devices.find(isRootDisk);
  if (options.image && !rootDisk) {
    throw new ToolError("--image needs a blk without a store; add --device=blk");
  }
  await checkFiles(options);
  const name = `vhostd-guest-${crypto.randomUUID().slice(0, 8)}`;
  const directory = `${Deno.env.get("TMPDIR") ?? "/tmp"}/${name}`;
  const isCopy = rootDisk !== undefined && options.image === undefined;
  const copy = isCopy ? { from: await rootImage(), to: `${directory}/root.img` } : undefined;

  const chosen = await chooseDevices(options.devices);
  const { devices, passt } = await withPasst(chosen);
  const served = devices.map(({ option, description }, index): ServedDevice => ({
    name: option.name,
    flags: option === rootDisk
      ? [
        `--blk-file=${options.image ?? copy?.to}`,
        ...options.overlay === undefined ? [] : [`--overlay=${options.overlay}`],
        ...option.flags,
      ]
      : option.flags,
    isOptional: isDefaultNetwork(option),
    frontend: frontendOf(option, description),
    socketPath: `${directory}/${description.name.slice(0, 24)}${index}.sock`,
    recordPath: `${directory}/${description.name.slice(0, 24)}${index}.json`,
    controlPath: controlFlag(option.flags) ??
      `${directory}/${description.name.slice(0, 24)}${index}.ctl`,
  }));
  // An image of the user's own may have a login where ours has a shell.
  const words = options.image && options.run ? ["init=/bin/sh"] : [];
  if (devices.some(({ description }) => description.id === NETWORK)) words.push("vhostd.dhcp");
  if (options.append) words.push(options.append);
  const disks = devices.filter(({ description }) => description.id === BLOCK);
  const at = disks.findIndex(({ option }) => option === rootDisk);
  const files = options.file.length > 0 ? { from: [...options.file], directory } : undefined;
  return {
    isOnWeb: options.web,
    isWatched: !options.noWatch && !options.qemuArguments.includes("-D"),
    ...{ directory, copy, files, served, passt },
    guest: {
      ...options,
      ...files && { initrd: initrdWith(files) },
      root: at < 0 ? undefined : `/dev/vd${String.fromCharCode(97 + at)}`,
      append: words.join(" "),
      devices: served.map(({ name, frontend, socketPath }): GuestDevice => ({
        kind: name,
        frontend,
        socketPath,
      })),
    },
  };
}

/** The control socket that a device's own flags ask for. */
function controlFlag(flags: readonly string[]): string | undefined {
  return flags.find((flag) => flag.startsWith(CONTROL_FLAG))?.slice(CONTROL_FLAG.length);
}

const CONTROL_FLAG = "--control-path=";

const NETWORK = 1; // virtio 1.3, 5.1.1
const BLOCK = 2; // virtio 1.3, 5.2.1

/** A device, and what its definition says. */
interface ChosenDevice {
  option: DeviceOption;
  description: DeviceDescription;
}

/**
 * Describes the devices. One that the user gave takes the place of the default one of its type,
 * except the root disk.
 */
async function chooseDevices(options: DeviceOption[]): Promise<ChosenDevice[]> {
  const all = await Promise.all(
    options.map(async (option) => ({ option, description: await describeDevice(option.name) })),
  );
  const own = all.flatMap(({ option, description }) => option.isDefault ? [] : [description.id]);
  return all.filter(({ option, description }) =>
    !option.isDefault || isRootDisk(option) || !own.includes(description.id)
  );
}

function isDefaultNetwork({ name, isDefault = false }: DeviceOption): boolean {
  return isDefault && name === "net";
}

/** Puts passt on PATH, if a device needs it. Where there is none, the default network is left out. */
async function withPasst(
  devices: ChosenDevice[],
): Promise<{ devices: ChosenDevice[]; passt?: string }> {
  if (!devices.some(({ option }) => option.flags.includes("--user"))) return { devices };
  try {
    const passt = (await programPath("passt")).replace(/\/[^/]*$/, "");
    const path = Deno.env.get("PATH") ?? "";
    if (path.split(":").includes(passt)) return { devices };
    Deno.env.set("PATH", `${passt}:${path}`);
    return { devices, passt };
  } catch (error) {
    const others = devices.filter(({ option }) => !isDefaultNetwork(option));
    if (!(error instanceof ToolError) || others.length === devices.length) throw error;
    progress(`the guest has no network: ${error.message}`);
    return { devices: others };
  }
}

async function describeDevice(name: string): Promise<DeviceDescription> {
  const [program, ...args] = vhostdCommand(["describe", "--json", name]);
  const { success, stdout, stderr } = await output(program, args);
  if (success) return JSON.parse(stdout);
  throw new ToolError(stderr.trim() || `vhostd cannot describe ${name}`);
}

function frontendOf(option: DeviceOption, description: DeviceDescription): QemuFrontend {
  const { id, name, config } = description;
  const queues = description.queues
    .reduce((sum, { many }) => sum + (many ? queueCount(option) : 1), 0);
  const frontend = qemuFrontend({ name, deviceId: id, configBytes: config?.bytes ?? 0, queues });
  if (frontend) return frontend;
  throw new ToolError(`--device=${option.name}: ${unknownToQemu(id)}`);
}

/** Prints the plan as the commands of a shell. */
export async function printPlan(plan: Plan): Promise<void> {
  const { directory, copy, files, served, passt, guest } = plan;
  const args = await machineArguments(guest, await bootFiles(guest));
  const commands = [
    quote(["mkdir", directory]),
    ...passt === undefined ? [] : [`PATH=${quote([passt])}:$PATH`],
    ...copy ? [quote(["cp", "--sparse=always", copy.from, copy.to])] : [],
    ...files ? [quote(await filesCommand(files, guest))] : [],
    ...served.map(({ name, socketPath, flags }) =>
      `${quote(vhostdCommand([name, `--socket-path=${socketPath}`, ...flags]))} &`
    ),
    quote([await qemuProgram(guest), ...args, ...TERMINAL_ARGUMENTS]),
  ];
  console.log(commands.join("\n"));
}

/** How the URIs of disks begin. */
const URI = /^(nbds?(\+unix)?|rbd|https?):/i;

async function checkFiles(options: Options): Promise<void> {
  const own = ["image", "kernel", "initrd"] as const;
  const paths = [
    ...own.map((name) => [name, options[name]] as const),
    ...options.file.map((path) => ["file", path] as const),
  ];
  for (const [name, path] of paths) {
    if (path === undefined || (name === "image" && URI.test(path))) continue;
    try {
      using _ = await Deno.open(path);
    } catch (error) {
      // "No such file or directory (os error 2): open 'PATH'"
      const reason = (error as Error).message.split(" (")[0];
      throw new ToolError(`--${name}=${path}: ${reason}`);
    }
  }
}

/** Words as a shell takes them. */
function quote(words: string[]): string {
  return words.map((word) =>
    /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
  ).join(" ");
}
