/** Opens disks of Ceph, whose names and options come as JSON, and prints why each cannot be. */
import rbd from "../../../backends/blk/rbd/mod.ts";

const cases: [name: string, options: Parameters<typeof rbd.open>[0]][] = JSON.parse(Deno.args[0]);
const reasons = await Promise.all(cases.map(async ([name, options]) => {
  try {
    await rbd.open(options, { name, readOnly: false, log() {}, resized() {} });
    return "it was opened";
  } catch (error) {
    return (error as Error).message;
  }
}));
console.log(JSON.stringify(reasons));
Deno.exit();
