/**
 * `deno task guest`: boots a real Linux guest on vhostd's devices.
 *
 * @module
 */

import { bootFiles } from "./guest.ts";
import { HELP, parseOptions } from "./options.ts";
import { makePlan, printPlan } from "./plan.ts";
import { GuestError, progress } from "./process.ts";
import { qemuProgram } from "./qemu.ts";
import { runSession } from "./session.ts";

async function main(): Promise<number> {
  const options = parseOptions(Deno.args);
  if (options.help) {
    console.log(HELP.trimEnd());
    return 0;
  }
  // `deno task` runs in the project's folder; paths are meant from the user's.
  const directory = Deno.env.get("INIT_CWD");
  if (directory) Deno.chdir(directory);

  const plan = await makePlan(options);
  // Everything that takes long is made before anything is started.
  await qemuProgram(plan.guest);
  await bootFiles(plan.guest);
  if (options.print) {
    await printPlan(plan);
    return 0;
  }
  if (plan.copy) {
    progress("the root disk is a throw-away copy; --image=PATH keeps your own");
  }
  return await runSession(plan, options.run);
}

try {
  Deno.exit(await main());
} catch (error) {
  // Anything else is a mistake of ours, and its stack says where.
  if (!(error instanceof GuestError || isSystemError(error))) throw error;
  progress(error.message);
  Deno.exit(1);
}

/** Whether the system refused something, such as space on the disk. */
function isSystemError(error: unknown): error is Error {
  return error instanceof Error && error.name in Deno.errors;
}
