import { assertEquals } from "@std/assert";
import { serve } from "@vhostd/vhostd";
import { VirtioDriver } from "@vhostd/vhostd/frontend";
import device from "./mod.ts";

Deno.test("my-device says again what the driver said", async () => {
  const directory = await Deno.makeTempDir();
  const socketPath = `${directory}/device.sock`;
  try {
    await using _server = await serve(device, { socketPath, log: console.error });
    await using driver = await VirtioDriver.start(socketPath, { queues: 2 });
    // Queue 0: a buffer for the device to fill, when it has something to say.
    const heard = driver.request(0, [], [64]);
    // Queue 1: what the driver says.
    await driver.request(1, [new TextEncoder().encode("hello")], []);
    const { data, written } = await heard;
    assertEquals(new TextDecoder().decode(data[0].subarray(0, written)), "hello");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
