import { assert, assertEquals } from "@std/assert";
import { serve } from "@vhostd/vhostd";
import { VirtioDriver } from "@vhostd/vhostd/frontend";
import device from "./mod.ts";

Deno.test("my-device fills a buffer, with at most so many bytes as --chunk says", async () => {
  const directory = await Deno.makeTempDir();
  const socketPath = `${directory}/device.sock`;
  try {
    await using _server = await serve(device, {
      socketPath,
      options: { chunk: 16 },
      log: console.error,
    });
    await using driver = await VirtioDriver.start(socketPath);
    // Queue 0: nothing for the device to read, 64 bytes for it to fill.
    const { written, data } = await driver.request(0, [], [64]);
    assertEquals(written, 16);
    assert(data[0].some((byte) => byte !== 0));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
