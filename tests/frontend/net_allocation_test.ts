import { assertLess } from "@std/assert";

const LOOP = new URL("lib/net_loop.ts", import.meta.url).pathname;

for (const port of ["null", "source", "switch"]) {
  for (const [ring, ...traced] of [["split"], ["packed"], ["split", "64", "3"]]) {
    const name = traced.length > 0 ? `${port}, ${ring}, traced` : `${port}, ${ring}`;
    Deno.test(`net makes no garbage per packet (${name})`, async () => {
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--allow-all", "--quiet", "--no-check", LOOP, port, ring, ...traced],
      }).output();
      const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
      if (!success) throw new Error(text(stderr));
      const [bytes] = text(stdout).split(" ").map(Number);
      assertLess(bytes, 1);
    });
  }
}
