import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { qemuFrontend } from "../../src/cli/qemu.ts";
import type { FactDifference } from "../../src/cli/record_facts.ts";
import type { RecordJson } from "../../src/runtime/record.ts";
import { filesCommand, initrdWith } from "../../tools/guest/files.ts";
import { Guest } from "../../tools/guest/guest.ts";
import { qemuOfVersion } from "../../tools/guest/programs.ts";
import { MACHINES } from "../../tools/guest/qemu.ts";
import { run } from "../../tools/lib/process.ts";
import { ToolError } from "../../tools/lib/tool_error.ts";
import { runCli } from "../frontend/lib/cli_process.ts";
import { Backend, ok, steps, temporary } from "./lib/helpers.ts";

const DRIVERS = new URL("../../examples/sensor_driver", import.meta.url).pathname;

let why = "";
try {
  await qemuOfVersion("11.1");
} catch (error) {
  if (!(error instanceof ToolError)) throw error;
  why = ` (skipped: only QEMU 11.1 has a front-end for sensors. ${error.message})`;
}

/** The steps of both drivers, as the README prints them side by side. */
const printed = stepsOfReadme(
  await Deno.readTextFile(new URL("../../README.md", import.meta.url)),
);

function stepsOfReadme(readme: string): { old: string[]; new: string[] } {
  const [, title, block] = readme.match(/\n(old_driver\.sh +driver\.sh)\n([^]*?)```/)!;
  const column = (from: number, to?: number) =>
    block.split("\n").map((line) => line.slice(from, to).trim().replaceAll(/ +/g, " "))
      .filter((line) => line !== "");
  const second = title.indexOf(" driver.sh");
  return { old: column(0, second), new: column(second) };
}

/** What a driver did after its reset, without times. */
function since({ config }: RecordJson): string[] {
  const { latest } = config.steps;
  return latest.slice(latest.findLastIndex(({ step }) => step === "reset") + 1)
    .map(({ field, step, bits }) => [field, step, ...bits].join(" "));
}

/** The fields that a driver uses now, and those that it left. */
function used({ config }: Pick<RecordJson, "config">): { used: string[]; left: string[] } {
  const names = (wanted: boolean) => {
    const fields = config.fields.filter(({ used }) => used === wanted);
    return [...new Set(fields.map(({ name }) => name.split(".")[0]))];
  };
  return { used: names(true), left: names(false) };
}

for (const machine of MACHINES) {
  Deno.test({
    name: `drivers in a guest on ${machine} use what they know of the sensor${why}`,
    ignore: why !== "",
    async fn(t) {
      using directory = temporary();
      await using sensor = await Backend.start("sensor", [], directory);
      await sensor.post("set", { name: "door", value: -2, unit: "cm" });
      await sensor.post("set", { name: "light", value: 70_000 });
      const old = `${directory.path}/old.json`;
      const files = { from: [DRIVERS], directory: directory.path };
      const [program, ...args] = await filesCommand(files, { machine });
      await run(program, args);
      const frontend = qemuFrontend({ name: "sensor", deviceId: 38, configBytes: 144, queues: 1 });
      await using guest = await Guest.boot({
        machine,
        initrd: initrdWith(files),
        devices: [{ ...sensor.device(), frontend }],
      });

      const onEach = {
        "the old one takes one reading, and leaves what it does not know": async () => {
          assertEquals(await ok(guest, "sh sensor_driver/old_driver.sh"), "door: -2 cm");
          const record = await sensor.record();
          assertEquals(since(record), printed.old);
          assertEquals(used(record), {
            used: ["status", "reading0"],
            left: ["followed", "reading1", "reading2", "reading3"],
          });
          assertEquals(record.config.steps.source, "reported");
          await Deno.writeTextFile(old, JSON.stringify(record));
        },

        "the new one takes all, and acknowledges bit by bit": async () => {
          assertEquals(await ok(guest, "sensor_driver/driver.sh"), "door: -2 cm\nlight: 70000");
          const record = await sensor.record();
          assertEquals(since(record), printed.new);
          assertEquals(used(record).left, ["reading2", "reading3"]);
          assertEquals(record.errors.total, 0);
          await Deno.writeTextFile(`${directory.path}/new.json`, JSON.stringify(record));
          const compared = await runCli(["compare", "--json", old, `${directory.path}/new.json`]);
          assertEquals(compared.status, 1, compared.stderr);
          const { differences } = JSON.parse(compared.stdout) as { differences: FactDifference[] };
          const onlyNew = differences.filter(({ a }) => a === null).map(({ subject }) => subject);
          const printedSteps = printed.new.filter((step) => !printed.old.includes(step));
          assertEquals(
            onlyNew.filter((subject) => subject.startsWith("step ")).sort(),
            printedSteps.map((step) => step.replace(/^(\S+) (\S+)/, "step $2 $1")).sort(),
          );
        },
      };
      if (machine === "microvm") return await steps(t, onEach);

      /** Runs commands of a driver that has opened the device. */
      const drive = (commands: string) =>
        ok(guest, `cd sensor_driver; . ./self_describing.sh; open_device 38; ${commands}`);
      await steps(t, {
        ...onEach,

        "each step is in the record as it comes": async () => {
          await drive("reset 1; status $DRIVER; take 3");
          assertEquals(used(await sensor.record()).used, ["status", "reading0"]);
          await drive("take 2; acknowledge $at $length 1; ! acknowledge $at $length 2");
          const record = await sensor.record();
          const followed = record.config.fields.find(({ name }) => name === "followed")!;
          assertEquals([followed.acknowledged, followed.left], [["READING_1"], ["READING_0"]]);
          assertEquals(since(record).at(-1), "followed acknowledged READING_1");
        },

        "writes that no driver may make change nothing": async () => {
          // QEMU sends its copy of the space with each write, and renews that at each read
          const writes: [write: string, refused?: string][] = [
            ["put 0 0x82", "alters its type to 0x82"],
            ["put 0 0x01", "takes back mark bits 0x80"],
            ["put 6 0xff", "acknowledges bits 0xfc, which are not offered"],
            ["put 6 0x00", "takes back acknowledgement bits 0x02"],
            ["put 2 0x42", "sets unknown status bits 0x40"],
            ["devmem $window 32 0xffffffff", "alters its type to 0xff"], // and more than the field
            ["put 1 0xff"], // a length
            ["put 5 0xff"], // the offered bits
            ["put 35 0x7f"], // a byte of a value
            ["put 143 0x83"], // a mark behind the last field
          ];
          const before = await sensor.record();
          await drive(writes.map(([write]) => `u8 0 >/dev/null; ${write}`).join("; "));
          assertEquals(await drive("echo $(u8 1) $(u8 5) $(u8 35) $(u8 143)"), "1 3 255 0");
          const { errors, config } = await sensor.record();
          assertEquals(config.steps, before.config.steps);
          assertEquals(used({ config }), used(before));
          const refused = writes.flatMap(([, reason]) => reason ?? []);
          assertEquals(errors.total, refused.length);
          for (const [i, reason] of refused.entries()) {
            assertStringIncludes(errors.latest[i].message, reason);
          }
        },

        "the next driver begins anew, and prints changes of readings": async () => {
          await ok(guest, "sensor_driver/driver.sh follow >/tmp/log & echo $! >/tmp/pid");
          await sensor.until((record) => since(record).at(-1)?.endsWith("DRIVER_OK") ?? false);
          await sensor.post("set", { name: "door", value: 85 });
          await ok(guest, "timeout 20 sh -c 'until grep -q 85 /tmp/log; do usleep 50000; done'");
          assert((await ok(guest, "cat /tmp/log")).startsWith("door: -2 cm\nlight: 70000\n"));
          await ok(guest, "kill $(cat /tmp/pid)");
        },
      });
    },
  });
}
