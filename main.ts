/**
 * The program: vhostd's command line, with the devices of `backends/`.
 *
 * @module
 */

import { commands, devices } from "./backends/mod.ts";
import { runProgram } from "./src/cli/program.ts";

if (import.meta.main) Deno.exit(await runProgram(Deno.args, devices, commands));
