/**
 * `vhostd list`: the devices that there are.
 *
 * @module
 */

import { shownJson } from "../runtime/shown.ts";
import { parseArguments } from "./arguments.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import type { CommandShape } from "./command.ts";
import { commandHelp } from "./help.ts";
import { isColoured, makeInk } from "./ink.ts";
import { helpOption } from "./shared_options.ts";
import { table } from "./table.ts";
import { UsageError } from "./usage_error.ts";

const options = { json: { type: "flag", about: "As JSON" }, ...helpOption } as const;

/** What may follow it. */
export const shape: CommandShape = { options };

/** Lists the devices. */
export async function run(args: readonly string[], devices: DeviceTable): Promise<number> {
  const { values, positional } = parseArguments(args, options, "vhostd list --help");
  if (values.help) {
    console.log(commandHelp("list [--json]", "Lists the devices.", options).trimEnd());
    return 0;
  }
  if (positional.length > 0) {
    throw new UsageError(`Expected nothing after list, got ${positional[0]}`);
  }
  const loaded = await Promise.all(Object.keys(devices).map((name) => loadDevice(devices, name)));
  if (values.json) {
    console.log(shownJson(loaded.map(({ name, deviceId, about }) => ({
      name,
      id: deviceId,
      about,
    }))));
    return 0;
  }
  const rows = loaded.map(({ name, about }) => [name, about]);
  const ink = makeInk(isColoured(Deno.stdout));
  console.log(
    table([{ title: "" }, { title: "" }], rows, { ink, titles: false, indent: "" })
      .join("\n"),
  );
  return 0;
}
