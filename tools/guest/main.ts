/** `deno task guest`: boots a real Linux guest on vhostd's devices. */
import { bootFiles } from "./guest.ts";
import { GUEST, type Options } from "./options.ts";
import { makePlan, printPlan } from "./plan.ts";
import { qemuProgram } from "./qemu.ts";
import { runSession } from "./session.ts";
import { runTool } from "../lib/tool.ts";
import { progress } from "./progress.ts";

async function main(options: Options): Promise<number> {
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
  if (plan.copy) progress("the root disk is a throw-away copy; --image=PATH keeps your own");
  return await runSession(plan, options.run);
}

if (import.meta.main) await runTool(GUEST, main);
