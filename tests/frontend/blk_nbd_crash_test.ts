/**
 * NBD servers that go away, under a load that verifies every block: killed and started again, slow,
 * failing; and vhostd killed.
 *
 * VHOSTD_TEST_KILLS sets how often each is killed.
 */
import { assertEquals } from "@std/assert";
import { NbdServer } from "../../tools/lib/nbd_server.ts";
import { Random } from "../../tools/lib/random.ts";
import { NbdPlace } from "./lib/nbd_place.ts";
import { diskBytes, VerifiedLoad } from "./lib/verified_load.ts";

const KILLS = Number(Deno.env.get("VHOSTD_TEST_KILLS") ?? 3);
const SHAPE = { queues: 2, lanes: 8 };
const SEED = Number(Deno.env.get("VHOSTD_TEST_SEED") ?? Math.trunc(Math.random() * 2 ** 32));
console.log(`VHOSTD_TEST_SEED=${SEED}`);

/** A disk's file that outlives its server. */
async function makeImage(place: NbdPlace): Promise<string> {
  const image = `${place.directory}/disk.img`;
  await Deno.writeFile(image, new Uint8Array());
  await Deno.truncate(image, diskBytes(SHAPE));
  return image;
}

for (const connections of [1, 4]) {
  Deno.test(`an NBD server that is killed and started again is waited for (${connections} connections)`, async () => {
    const random = new Random(SEED);
    await using place = await NbdPlace.make();
    const image = await makeImage(place);
    const start = () => NbdServer.nbdkit({ at: place.nbd, plugin: "file", args: [image] });
    let server = await start();
    await using vhostd = await place.serve([`--store-options=connections=${connections}`]);
    await using driver = await place.driver();
    const load = new VerifiedLoad(driver, SHAPE);
    for (let kill = 0; kill < KILLS; kill++) {
      await load.progress(1 + random.below(500));
      await server[Symbol.asyncDispose]();
      server = await start();
    }
    await load.progress(100);
    await load.end();
    await driver.close();
    const { status, stderr } = await vhostd.stop();
    assertEquals(status, 0, stderr);
    await server[Symbol.asyncDispose]();
    assertEquals(await Deno.readFile(image), load.contents());
  });
}

Deno.test("kill -9 of vhostd on an NBD disk loses nothing", async () => {
  const random = new Random(SEED + 1);
  await using place = await NbdPlace.make();
  const image = await makeImage(place);
  await using server = await NbdServer.nbdkit({ at: place.nbd, plugin: "file", args: [image] });
  let vhostd = await place.serve();
  try {
    await using driver = await place.driver(true);
    const load = new VerifiedLoad(driver, SHAPE);
    for (let kill = 0; kill < KILLS; kill++) {
      await load.progress(1 + random.below(300));
      const resume = load.pause();
      await vhostd[Symbol.asyncDispose]();
      vhostd = await place.serve();
      await driver.reconnect();
      resume();
    }
    await load.progress(50);
    await load.end();
    await driver.close();
    assertEquals((await vhostd.stop()).status, 0);
    await server[Symbol.asyncDispose]();
    assertEquals(await Deno.readFile(image), load.contents());
  } finally {
    await vhostd[Symbol.asyncDispose]();
  }
});
