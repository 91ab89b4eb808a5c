/** `vhostd top` and `vhostd metrics`, of devices that come and go. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import rng from "../../backends/rng/mod.ts";
import { serve } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";

Deno.test("vhostd top and metrics show devices while they run", async () => {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-top-" });
  try {
    const socketPath = `${directory}/rng.sock`, path = `${directory}/rng.ctl`;
    await using metrics = new CliProcess(["metrics", "--listen=127.0.0.1:0", directory]);
    const url = (await metrics.until("/metrics")).trim().split(" ").at(-1)!;
    const scrape = async () => {
      const response = await fetch(url);
      assertEquals(
        response.headers.get("content-type"),
        "text/plain; version=0.0.4; charset=utf-8",
      );
      return await response.text();
    };
    assertEquals(await scrape(), "");
    for (const [method, path, status] of [["GET", "/", 404], ["POST", "/metrics", 405]] as const) {
      const response = await fetch(new URL(path, url), { method });
      assertEquals([response.status, (await response.text()).split("\n").length], [status, 2]);
    }
    {
      await using server = await serve(rng, { socketPath });
      await using control = new AsyncDisposableStack();
      control.use(new ControlSocket(server.host, path));
      await using driver = await VirtioDriver.start(socketPath);
      await driver.request(0, [], [16]);
      // A request's time is known after the driver's notification
      let text;
      do text = await scrape(); while (!text.includes("vhostd_request_duration_seconds_count"));
      assertStringIncludes(text, `vhostd_up{socket="${path}"} 1\n`);
      const labels = `socket="${path}",device="rng",queue="0",name="requestq"`;
      assertStringIncludes(text, `\nvhostd_queue_requests_total{${labels}} 1\n`);
      assertStringIncludes(
        text,
        `\nvhostd_request_duration_seconds_count{${labels},kind="request"} 1\n`,
      );

      // More scrapes than a control socket takes requests at a time
      for (const text of await Promise.all(Array.from({ length: 40 }, scrape))) {
        assertStringIncludes(text, `vhostd_up{socket="${path}"} 1\n`);
      }
      // A control socket that lies is a silent one
      const lie = '{"version":1,"queues":[],"device":{"name":"\\u001b[2J"}}';
      await using _liar = Deno.serve(
        { path: `${directory}/liar.ctl`, onListen() {} },
        () => new Response(lie),
      );
      assertStringIncludes(await scrape(), `vhostd_up{socket="${directory}/liar.ctl"} 0\n`);

      await using top = new CliProcess(["top", path]);
      let shown = "";
      while (!/ rng +0 +requestq +running +[1-9]/.test(shown)) {
        await driver.request(0, [], [16]);
        const reading = top.readStdout();
        let isDone = false;
        reading.finally(() => isDone = true);
        while (!isDone) await driver.request(0, [], [16]);
        const piece = await reading;
        if (piece === undefined) throw new Error(`Expected a table, got ${shown}`);
        shown += piece;
      }
      assertMatch(shown, /^1 device, [\d ]+ requests\/s, \d+ % CPU\n/);
      await control.disposeAsync();
      // It ends when all devices are gone
      while (await top.readStdout() !== undefined);
    }
    assertEquals(await scrape(), "");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("vhostd top and metrics say what is wrong in one line", async () => {
  const directory = await Deno.makeTempDir({ prefix: "vhostd-top-" });
  try {
    const wrong: [args: string[], status: number, why: string][] = [
      [["top", `${directory}/none`], 2, "Expected a control socket"],
      [["metrics", import.meta.filename!], 2, "Expected a control socket"],
      [["metrics", "--listen=9427"], 2, "Expected an address and a port as --listen"],
      [["top", directory], 1, "Expected a control socket that answers, got none"],
    ];
    await Promise.all(wrong.map(async ([args, expected, why]) => {
      const { status, stdout, stderr } = await runCli(args);
      assertEquals([status, stdout, stderr.split("\n").length], [expected, "", 2], stderr);
      assertStringIncludes(stderr, why);
    }));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
