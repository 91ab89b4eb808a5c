import { assert, assertEquals, assertRejects } from "@std/assert";
import * as fc from "fast-check";
import { type ConfigTransport, SelfDescribingDriver } from "../../src/virtio/config/driver.ts";
import { ConfigAccessError } from "../../src/virtio/config/error.ts";
import { bytes, u16, u32, u8 } from "../../src/virtio/config/fields.ts";
import {
  bitField,
  CONFIG_STATUS,
  field,
  selfDescribing,
  statusField,
} from "../../src/virtio/config/self_describing.ts";
import { ConfigSpace } from "../../src/virtio/config/space.ts";

const layout = selfDescribing({
  status: statusField(1),
  queue0: field(2, u16("Size of queue 0")),
  features: bitField(3, { ALARM: 0, FAR: 9 }),
  queue1: field(2, u16("Size of queue 1")),
});

function direct(space: ConfigSpace<typeof layout>): ConfigTransport {
  return {
    read: (offset, size) => space.read(offset, size),
    write: (offset, data) => void space.write(offset, data),
  };
}

/** Sends the whole space with every write and reads it with every read, as QEMU does. */
function asQemu(space: ConfigSpace<typeof layout>): ConfigTransport {
  let cached = space.read(0, layout.size);
  return {
    async read(offset, size) {
      await Promise.resolve();
      cached = space.read(0, layout.size);
      return cached.slice(offset, offset + size);
    },
    async write(offset, data) {
      await Promise.resolve();
      cached.set(data, offset);
      space.write(0, cached);
    },
  };
}

for (const [name, transport] of [["a direct transport", direct], ["QEMU's way", asQemu]] as const) {
  Deno.test(`SelfDescribingDriver negotiates, resets and negotiates again over ${name}`, async () => {
    const space = new ConfigSpace(layout);
    layout.assign(space.view, { queue0: 64, queue1: 128 });
    const driver = new SelfDescribingDriver(transport(space));
    for (let round = 0; round < 2; round++) {
      const status = await driver.find(1);
      assert(status);
      await driver.status(status, CONFIG_STATUS.ACKNOWLEDGE);
      await driver.status(status, CONFIG_STATUS.DRIVER);

      assertEquals(await driver.find(2), { type: 2, offset: 5, data: Uint8Array.of(64, 0) });
      assertEquals((await driver.find(2))?.data[0], 128);
      assertEquals(await driver.find(2), undefined);
      assertEquals(await driver.find(99), undefined);

      const features = await driver.find(3);
      assertEquals(await driver.acknowledge(features, 9), true);
      assertEquals(space.view.features.acknowledged("FAR"), true);
      assertEquals(space.view.features.acknowledged("ALARM"), false);
      await driver.status(status, CONFIG_STATUS.DRIVER_OK);
      assertEquals(space.view.status, 7);
      assertEquals(space.observations.every(({ used }) => used), true);

      await driver.reset(status);
      assertEquals(space.observations.some(({ used }) => used), false);
      assertEquals(space.view.features.acknowledged("FAR"), false);
      assertEquals(space.view.status, 0);
    }
  });
}

Deno.test("SelfDescribingDriver.acknowledge() returns false for a bit that is not offered or does not exist", async () => {
  const space = new ConfigSpace(layout);
  const driver = new SelfDescribingDriver(direct(space));
  const features = await driver.find(3);
  for (const bit of [1, 16, 1000, -1, 0.5]) {
    assertEquals(await driver.acknowledge(features, bit), false);
  }
  assertEquals(await driver.acknowledge(undefined, 0), false);
  assertEquals(space.observations[2].writes, 0);
});

Deno.test("SelfDescribingDriver.reset() resets when no status was set", async () => {
  const space = new ConfigSpace(layout);
  const driver = new SelfDescribingDriver(asQemu(space));
  const status = await driver.find(1);
  assert(status);
  await driver.reset(status);
  assertEquals(space.observations[0].used, false);
});

Deno.test("SelfDescribingDriver.find() never returns a field twice when calls overlap", async () => {
  const space = new ConfigSpace(layout);
  const driver = new SelfDescribingDriver(asQemu(space));
  const found = await Promise.all([driver.find(2), driver.find(2), driver.find(2)]);
  assertEquals(found.map((entry) => entry?.offset), [5, 15, undefined]);
});

Deno.test("SelfDescribingDriver.find() works after an earlier call failed", async () => {
  const space = new ConfigSpace(layout);
  let isBroken = true;
  const driver = new SelfDescribingDriver({
    read: (offset, size) => {
      if (isBroken) throw new Error("Gone");
      return space.read(offset, size);
    },
    write: () => {},
  });
  await assertRejects(() => driver.find(2), Error, "Gone");
  isBroken = false;
  assertEquals((await driver.find(2))?.offset, 5);
});

Deno.test("SelfDescribingDriver.find() refuses a space without an end", async () => {
  const endless = new SelfDescribingDriver({
    read: (_, size) => new Uint8Array(size).fill(5),
    write: () => {},
  });
  await assertRejects(() => endless.find(6), ConfigAccessError, "no end within 256 bytes");
});

Deno.test("SelfDescribingDriver.find() takes fields in order when types are random", async () => {
  const types = fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 12 });
  const wanted = fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 20 });
  await fc.assert(fc.asyncProperty(types, wanted, async (types, wanted) => {
    const kinds = [u8(""), u32(""), bytes(7, "")];
    const space = new ConfigSpace(selfDescribing(Object.fromEntries(types.map((type, i) => [
      `f${i}`,
      field(type, kinds[i % kinds.length]),
    ]))));
    const driver = new SelfDescribingDriver({
      read: (offset, size) => space.read(offset, size),
      write: (offset, data) => void space.write(offset, data),
    });
    const left = types.map((type, i) => ({ type, offset: space.layout.fields[i].offset }));
    for (const type of wanted) {
      const index = left.findIndex((entry) => entry.type === type);
      const [expected] = index === -1 ? [] : left.splice(index, 1);
      assertEquals((await driver.find(type))?.offset, expected?.offset);
    }
    assertEquals(
      space.observations.filter(({ used }) => !used).length,
      left.length,
    );
  }));
});
