import { assertEquals, assertThrows } from "@std/assert";
import { parseRbdName, type RbdName } from "../../backends/blk/rbd/rbd_name.ts";

const PLAIN = {
  ...{ pool: "rbd", namespace: "", image: "disk", snapshot: undefined },
  ...{ id: undefined, conf: undefined, settings: [] },
};

Deno.test("parseRbdName() reads what QEMU takes", () => {
  const cases: [name: string, expected: Partial<RbdName>][] = [
    ["rbd:rbd/disk", {}],
    ["rbd:rbd/team/disk", { namespace: "team" }],
    ["rbd:rbd/disk@monday", { snapshot: "monday" }],
    ["rbd:rbd/team/disk@monday:id=guest", { namespace: "team", snapshot: "monday", id: "guest" }],
    ["rbd:rbd/disk:id=guest:conf=/etc/a=b.conf", { id: "guest", conf: "/etc/a=b.conf" }],
    ["rbd:a\\/b/c\\@d\\:e", { pool: "a/b", image: "c@d:e" }],
    ["rbd:rbd/disk@a\\@b", { snapshot: "a@b" }],
    ["rbd:rbd/disk:mon_host=10.0.0.1\\:6789:rbd_cache=false", {
      settings: [["mon_host", "10.0.0.1:6789"], ["rbd_cache", "false"]],
    }],
    ["rbd:rbd/disk:conf=/a@b", { conf: "/a@b" }],
  ];
  for (const [name, expected] of cases) {
    assertEquals(parseRbdName(name), { ...PLAIN, ...expected }, name);
  }
});

Deno.test("parseRbdName() refuses what names no image", () => {
  const shape = "Expected rbd:POOL/[NAMESPACE/]IMAGE[@SNAPSHOT][:NAME=VALUE…], got ";
  const bad = ["rbd:", "rbd:disk", "rbd:/disk", "rbd:rbd/", "rbd:a/b/c/d", "rbd:rbd/disk@"];
  for (const name of [...bad, "rbd:rbd/disk@a@b"]) {
    assertThrows(() => parseRbdName(name), Error, shape + name);
  }
  assertThrows(() => parseRbdName("rbd:rbd/disk:id"), Error, '"id", which has no value');
  assertThrows(() => parseRbdName("rbd:rbd/disk:"), Error, '"", which has no value');
  assertThrows(() => parseRbdName("rbd:rbd/disk:key=secret"), Error, "use keyring=");
});
