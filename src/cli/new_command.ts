/**
 * `vhostd new`: makes a folder with a working device, for its author to change.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { parseCommand } from "./help.ts";
import { plainMessage } from "../linux/mod.ts";
import { shown } from "../runtime/shown.ts";
import { shellWord } from "./qemu.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";

const options = {
  kind: {
    type: "text",
    placeholder: "entropy|console|network",
    choices: ["entropy", "console", "network"],
    default: "entropy",
    about: "What to begin with: a device that answers, one that sends on its own too, or a network",
  },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND = {
  usage: "new FOLDER [--kind=entropy|console|network]",
  about:
    "Makes a folder with a device of your own, or a network for the device net: mod.ts, its test, and " +
    "a deno.json with the tasks check, test, vhostd and guest.",
  options,
  operand: "one folder to make",
};

/** The name of the device in the templates. */
const PLACEHOLDER = "my-device";

/** The files of a kind in `templates/`. */
const TEMPLATE_FILES = ["mod.ts", "mod_test.ts"];

/** Makes a folder. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const folder = parsed.operand.replace(/(?<=.)\/+$/, "");
  const name = folder.replace(/^.*\//, "");
  if (!/^[a-z][a-z0-9-]*$/.test(name)) {
    throw new UsageError(
      `Expected a folder named as a device, of a-z, 0-9 and -, got ${name}; such as my-sensor`,
    );
  }
  const kind = parsed.values.kind as string ?? options.kind.default;
  await make(folder, await filesOf(name, kind));
  const what = kind === "network" ? "network" : "device";
  console.log(
    `Made ${shown(folder)}: mod.ts is the ${what}, mod_test.ts its test. Next:\n\n` +
      `  cd ${shown(folder)}\n  deno task check\n  deno task test\n` +
      "  deno task vhostd --socket-path=/tmp/device.sock\n" +
      (checkout() === undefined ? "" : "  deno task guest        # a Linux guest that has it\n"),
  );
  return 0;
}

/** Writes a folder with all its files, or nothing. */
async function make(folder: string, files: Readonly<Record<string, string>>): Promise<void> {
  if (await exists(folder)) {
    throw new Error(`${folder} exists already; remove it, or name another folder`);
  }
  const parent = folder.includes("/") ? folder.slice(0, folder.lastIndexOf("/")) || "/" : ".";
  let unfinished: string;
  try {
    unfinished = await Deno.makeTempDir({ dir: parent, prefix: ".vhostd-new-" });
  } catch (cause) {
    throw cannotMake(folder, cause);
  }
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${unfinished}/${name}`, text);
    }
    await Deno.chmod(unfinished, 0o777 & ~Deno.umask());
    await Deno.rename(unfinished, folder);
  } catch (cause) {
    await Deno.remove(unfinished, { recursive: true });
    throw cannotMake(folder, cause);
  }
}

function cannotMake(folder: string, cause: unknown): unknown {
  if (cause instanceof Deno.errors.NotCapable) return cause;
  const reason = cause instanceof Deno.errors.NotFound
    ? "the directory that it would be in does not exist; make that first"
    : plainMessage(cause);
  return new Error(`Cannot make ${folder}: ${reason}`, { cause });
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The files of a folder, by name. */
async function filesOf(name: string, kind: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const file of TEMPLATE_FILES) {
    const response = await fetch(new URL(`./templates/${kind}/${file}`, import.meta.url));
    files[file] = (await response.text()).replaceAll(PLACEHOLDER, name);
  }
  const { default: own } = await import("../../deno.json", { with: { type: "json" } });
  const config = denoConfig(own, checkout(), kind);
  return { ...files, "deno.json": `${JSON.stringify(config, null, 2)}\n` };
}

/** The directory of vhostd's files; undefined if it came from the registry. */
function checkout(): string | undefined {
  const url = new URL("../../", import.meta.url);
  if (url.protocol !== "file:") return undefined;
  return decodeURIComponent(url.pathname).replace(/\/$/, "");
}

/** The used part of vhostd's deno.json. */
interface OwnConfig {
  name: string;
  version: string;
  imports: Readonly<Record<string, string>>;
}

/**
 * The deno.json of a folder. It imports from the registry; if vhostd is a checkout, the imports are
 * linked to it and nothing is downloaded.
 *
 * @param checkout The directory of vhostd's files; undefined if it came from the registry.
 */
export function denoConfig(
  own: OwnConfig,
  checkout: string | undefined,
  kind: string = options.kind.default,
): unknown {
  const { name, version, imports: { "@std/assert": assert } } = own;
  const run = "deno run --quiet --allow-all";
  const device = kind === "network" ? "net --handler=./mod.ts" : "./mod.ts";
  return {
    imports: { "@std/assert": assert, [name]: `jsr:${name}@^${version}` },
    // A lock file would name the packages that the links replace
    ...checkout !== undefined && { links: [checkout, `${checkout}/compat/std/*`], lock: false },
    tasks: {
      check: "deno check --quiet",
      // With type checks a queue thread takes seconds to start, and requests time out
      test: "deno test --quiet --no-check --allow-all",
      vhostd: `${run} ${name}/main ${device}`,
      ...checkout !== undefined && {
        guest: `${run} ${shellWord(`${checkout}/tools/guest/main.ts`)} ${
          shellWord(`--device=${device}`)
        }`,
      },
    },
    fmt: { lineWidth: 100 },
  };
}
