import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type AnyDevice, serve } from "../../mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { withDirectory } from "./lib/directory.ts";
import echo from "./lib/echo_device.ts";

Deno.test("a report() with a BigInt, a circle or an error ends no device", () =>
  withDirectory(async (directory) => {
    const circle: Record<string, unknown> = {};
    circle.circle = circle;
    let report = (): Record<string, unknown> => ({ bytes: 7n, large: 2n ** 64n });
    const device = { ...echo, open: () => ({ report: () => report() }) } as unknown as AnyDevice;
    const control = `${directory}/control.sock`;
    await using server = await serve(device, { socketPath: `${directory}/s.sock`, plane: "main" });
    assertEquals(server.record().report, { bytes: 7, large: "18446744073709551616" });
    {
      await using _control = new ControlSocket(server.host, control);
      using client = Deno.createHttpClient({ proxy: { transport: "unix", path: control } });
      const answer = await fetch("http://localhost/record", { client });
      assertEquals((await answer.json()).report.bytes, 7);
    }
    report = () => circle;
    assertStringIncludes(String(server.record().report.error), "report() failed: ");
    report = () => {
      throw new Error("No report today");
    };
    assertEquals(server.record().report, { error: "report() failed: No report today" });
  }));

Deno.test("values that cannot be copied to a queue thread are reported, with the device and what may be shared", () =>
  withDirectory(async (directory) => {
    const open = () => ({ shared: { callback: () => 0 } });
    const device = { ...echo, open } as unknown as AnyDevice;
    await assertRejects(
      () => serve(device, { socketPath: `${directory}/s.sock` }),
      Error,
      "Cannot hand queue threads of echo what its open() returned as shared: ",
    );
  }));
