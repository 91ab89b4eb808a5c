/** What the options of `deno task guest` mean. */
import { assertEquals } from "@std/assert";
import { isRootDisk } from "../../tools/guest/options.ts";

Deno.test("isRootDisk() tells a blk without a store of its own", () => {
  const own = [
    "./my_disk.ts --store-options=size=1M",
    "--read-only disk.img",
    "--serial a nbd://server/export",
    "--blk-file=disk.img",
    "--null --size 1G",
  ];
  const root = ["", "--serial a", "--overlay delta.img --iops=10", "--read-only"];
  for (const text of [...own, ...root]) {
    const flags = text.split(" ").filter((word) => word);
    assertEquals(isRootDisk({ name: "blk", flags }), root.includes(text), text);
  }
});
