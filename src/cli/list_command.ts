/**
 * `vhostd list`: lists the devices.
 *
 * @module
 */

import { shownJson } from "../runtime/shown.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import type { CommandShape } from "./command.ts";
import { parseCommand } from "./help.ts";
import { isColoured, makeInk } from "./ink.ts";
import { helpOption } from "./shared_options.ts";
import { table } from "./table.ts";

const options = { json: { type: "flag", about: "As JSON" }, ...helpOption } as const;

/** For completion. */
export const shape: CommandShape = { options };

/** Lists the devices. */
export async function run(args: readonly string[], devices: DeviceTable): Promise<number> {
  const parsed = parseCommand(
    { usage: "list [--json]", about: "Lists the devices.", options },
    args,
  );
  if (parsed === undefined) return 0;
  const loaded = await Promise.all(Object.keys(devices).map((name) => loadDevice(devices, name)));
  if (parsed.values.json) {
    console.log(shownJson(loaded.map(({ name, deviceId: id, about }) => ({ name, id, about }))));
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
