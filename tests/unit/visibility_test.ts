import { assertEquals } from "@std/assert";
import { type FrontendConduct, visibilityOf } from "../../src/runtime/visibility.ts";

const NET = 1, BLOCK = 2, CONSOLE = 3, RNG = 4, INPUT = 18, VSOCK = 19;

function sources(deviceId: number, conduct: Partial<FrontendConduct> = {}): [string, string] {
  const { configReads, configWrites } = visibilityOf(deviceId, {
    command: "qemu-system-x86",
    takesConfig: false,
    configReads: 0,
    configWrites: 0,
    announcements: 0,
    ...conduct,
  });
  return [configReads.source, configWrites.source];
}

Deno.test("visibilityOf() knows what QEMU's own front-ends hide", () => {
  const takesConfig = true;
  assertEquals(sources(INPUT, { takesConfig, configReads: 90 }), ["reported", "reported"]);
  assertEquals(sources(BLOCK, { takesConfig, configReads: 1 }), ["inferred", "reported"]);
  assertEquals(sources(VSOCK, { takesConfig, configReads: 1 }), ["inferred", "not observable"]);
  assertEquals(sources(NET), ["not observable", "not observable"]);
  assertEquals(sources(RNG), ["not observable", "not observable"]);
});

Deno.test("visibilityOf() assumes QEMU's own front-end for a disk whose config is read again after a change", () => {
  const conduct = { takesConfig: true, configReads: 4, announcements: 3 };
  assertEquals(sources(BLOCK, conduct), ["inferred", "reported"]);
});

Deno.test("visibilityOf() recognises the generic front-end by its requests", () => {
  const takesConfig = true;
  // It reads config space, which QEMU's own front-ends of these types never do.
  for (const deviceId of [NET, RNG, CONSOLE, 38]) {
    assertEquals(sources(deviceId, { takesConfig }), ["reported", "reported"]);
  }
  assertEquals(sources(BLOCK, { takesConfig, configReads: 2 }), ["reported", "reported"]);
  assertEquals(sources(VSOCK, { takesConfig, configReads: 5, announcements: 3 }), [
    "reported",
    "reported",
  ]);
});

Deno.test("visibilityOf() hides nothing that was counted", () => {
  for (let deviceId = 1; deviceId < 64; deviceId++) {
    const [reads] = sources(deviceId, { configReads: 1 });
    const [, writes] = sources(deviceId, { configWrites: 1 });
    assertEquals([reads, writes].includes("not observable"), false, `device ${deviceId}`);
  }
});

Deno.test("visibilityOf() trusts the messages of other front-ends", () => {
  assertEquals(sources(NET, { command: null }), ["reported", "reported"]);
  assertEquals(sources(BLOCK, { command: "deno" }), ["reported", "reported"]);
});
