import { assertEquals } from "@std/assert";
import {
  type ProtocolFeature,
  protocolFeatureMask,
  protocolFeatureNames,
  protocolFeatures,
} from "../../src/vhost_user/mod.ts";

Deno.test("protocolFeatures names every bit from 0 to 23 once", () => {
  const bits = Object.values(protocolFeatures).toSorted((a, b) => a - b);
  assertEquals<number[]>(bits, Array.from({ length: 24 }, (_, bit) => bit));
});

Deno.test("protocolFeatures has the bits of QEMU's vhost-user.h", () => {
  assertEquals<number>(protocolFeatures.REPLY_ACK, 3);
  assertEquals<number>(protocolFeatures.CONFIG, 9);
  assertEquals<number>(protocolFeatures.CONFIGURE_MEM_SLOTS, 15);
  assertEquals<number>(protocolFeatures.DEVICE_STATE, 19);
  assertEquals<number>(protocolFeatures.SHMEM, 22);
});

Deno.test("protocolFeatureMask() and protocolFeatureNames() are inverse", () => {
  const names = Object.keys(protocolFeatures) as ProtocolFeature[];
  assertEquals(protocolFeatureMask(...names), 0xffffffn);
  assertEquals(protocolFeatureNames(0xffffffn), names);
  assertEquals(protocolFeatureMask(), 0n);
  assertEquals(protocolFeatureNames(0n), []);
});

Deno.test("protocolFeatureNames() names unknown bits", () => {
  assertEquals(protocolFeatureNames(1n << 63n | 1n), ["MQ", "bit 63"]);
});
