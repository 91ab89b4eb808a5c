import { assert, assertEquals } from "@std/assert";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { parseEvents } from "../../backends/input/events.ts";
import { profileModel } from "../../backends/input/profiles.ts";
import { CliProcess } from "./lib/cli_process.ts";

const readme = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));

/** The device of the README, word for word. */
function readmeDevice(): string {
  const [, code] = readme.match(/```ts\n(\/\/ my_rng\.ts\n[^]*?)```/) ?? [];
  assert(code !== undefined, "Expected a block of my_rng.ts in README.md");
  return code;
}

Deno.test("the README's device runs as it is printed", async () => {
  // Inside the project, so that `@vhostd/vhostd` resolves.
  const cache = new URL("../../.cache/", import.meta.url).pathname;
  Deno.mkdirSync(cache, { recursive: true });
  const directory = Deno.makeTempDirSync({ dir: cache, prefix: "readme-" });
  try {
    const module = `${directory}/my_rng.ts`;
    Deno.writeTextFileSync(module, readmeDevice());
    const check = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--quiet", module],
      stderr: "piped",
    }).output();
    assert(check.success, new TextDecoder().decode(check.stderr));
    const socketPath = `${directory}/rng.sock`;
    await using cli = new CliProcess([module, `--socket-path=${socketPath}`, "--chunk=5"]);
    await cli.until("listens");
    await using driver = await VirtioDriver.start(socketPath);
    const first = await driver.request(0, [], [16]);
    const second = await driver.request(0, [], [16]);
    assertEquals([first.written, second.written], [5, 5]);
    assert(first.data[0].some((byte, i) => byte !== second.data[0][i]));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
  await watchesEnded();
});

Deno.test("the README's device has about thirty lines", () => {
  assert(readmeDevice().trim().split("\n").length <= 35);
});

Deno.test("the README's events are taken, each by a keyboard, a mouse or a tablet", () => {
  const [, block] = readme.match(/```jsonc\n(\{ "type"[^]*?)```/) ?? [];
  assert(block !== undefined, "Expected a block of events in README.md");
  const models = (["keyboard", "mouse", "tablet"] as const).map((name) => profileModel(name, {}));
  for (const line of block.trim().split("\n")) {
    const event = JSON.parse(line.replace(/ \/\/.*$/, ""));
    const takers = models.filter((model) => {
      try {
        return parseEvents(event, model).length > 0;
      } catch {
        return false;
      }
    });
    assert(takers.length > 0, line);
  }
});
