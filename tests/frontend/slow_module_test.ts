/** Modules of a person that never finish loading, and devices that never finish opening. */
import { assertEquals, assertRejects } from "@std/assert";
import { noteSlow } from "../../src/runtime/patience.ts";
import { loadDefault } from "../../mod.ts";

Deno.test("loadDefault() does not wait for a module whose top level awaits for ever", async () => {
  // Deno ends a test whose module can never go on, so this one can once it was given up.
  const gate = Promise.withResolvers<void>();
  Object.assign(globalThis, { slowModuleGate: gate.promise });
  const name = "data:application/javascript,await globalThis.slowModuleGate; export default 1";
  await assertRejects(
    () => loadDefault("network", name, 20),
    Error,
    `Cannot load the network ${name}: Expected it within 0.02 s, still waiting: an await at its ` +
      "top level does not settle",
  );
  gate.resolve();
  assertEquals((await loadDefault("network", name)).value, 1);
});

Deno.test("loadDefault() waits for a module whose top level awaits a moment", async () => {
  const code = "await new Promise((resolve) => setTimeout(resolve, 20)); export default 5";
  assertEquals((await loadDefault("store", `data:application/javascript,${code}`)).value, 5);
});

Deno.test("noteSlow() tells once of what takes long, and of nothing else", async () => {
  const lines: string[] = [];
  const told = Promise.withResolvers<void>();
  const log = (line: string) => {
    lines.push(line);
    told.resolve();
  };
  assertEquals(await noteSlow(Promise.resolve(3), "open() of a", log, 10), 3);
  await assertRejects(() => noteSlow(Promise.reject(new Error("no")), "open() of b", log, 10));
  await noteSlow(told.promise, "open() of c", log, 10);
  assertEquals(lines, ["Expected open() of c to end within 0.01 s; still waiting"]);
});
