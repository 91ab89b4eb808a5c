import { assertLess } from "@std/assert";

const LOOP = new URL("lib/net_loop.ts", import.meta.url).pathname;

for (const port of ["null", "source", "switch"]) {
  for (const ring of ["split", "packed"]) {
    Deno.test(`net makes no garbage per packet (${port}, ${ring})`, async () => {
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--allow-all", "--quiet", "--no-check", LOOP, port, ring],
      }).output();
      const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
      if (!success) throw new Error(text(stderr));
      const [bytes] = text(stdout).split(" ").map(Number);
      assertLess(bytes, 1);
    });
  }
}
