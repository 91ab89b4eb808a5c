/** The page of `vhostd web` in a real Chromium. */
import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { BlkDriver, VirtioDriver } from "../../src/frontend/mod.ts";
import { chromiumPackages, startChromium } from "../../tools/lib/chromium.ts";
import rng from "../../backends/rng/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { DeviceHost } from "../../src/runtime/mod.ts";
import { CliProcess } from "./lib/cli_process.ts";

let missing = "";
try {
  await chromiumPackages();
} catch (error) {
  missing = ` (needs Chromium: ${(error as Error).message})`;
}

/** Time limit for what the page is to show. */
const TIMEOUT_MS = 60_000;

Deno.test({
  name: `the page shows devices under load, lights fields up, and needs no pointer${missing}`,
  ignore: missing !== "",
  // Playwright keeps its pipes to the browser
  sanitizeResources: false,
  sanitizeOps: false,
  async fn() {
    const directory = await Deno.makeTempDir();
    const paths = (name: string) => [
      `--socket-path=${directory}/${name}.sock`,
      `--control-path=${directory}/${name}.ctl`,
    ];
    await using disk = new CliProcess(["blk", "--size=64M", "--num-queues=1", ...paths("disk")]);
    await using sensor = new CliProcess(["sensor", ...paths("sensor")]);
    await using keyboard = new CliProcess(["input", ...paths("keyboard")]);
    for (const device of [disk, sensor, keyboard]) await device.until("listens on");
    await using web = new CliProcess(["web", "--listen=127.0.0.1:0", "--control", directory]);
    const url = (await web.readStdout())!.trim();
    const browser = await startChromium();
    try {
      const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
      const page = await context.newPage();
      page.setDefaultTimeout(TIMEOUT_MS);
      const problems: string[] = [];
      page.on("pageerror", (error) => problems.push(error.message));
      page.on("console", (message) => {
        if (message.type() === "error") problems.push(message.text());
      });
      await page.goto(`${url}#disk`);

      // Under load: the rate, the queue and the field that the driver reads
      await page.locator("nav a", { hasText: "sensor" }).waitFor();
      await using driver = await VirtioDriver.start(`${directory}/disk.sock`, {
        timeoutMs: TIMEOUT_MS,
      });
      const blk = new BlkDriver(driver);
      let isLoaded = true;
      const load = (async () => {
        while (isLoaded) {
          await blk.write(0, new Uint8Array(4096));
          await new Promise((resolve) => setTimeout(resolve, 2));
        }
      })();
      await page.locator(".queue.running").waitFor();
      await page.waitForFunction(() =>
        parseFloat(document.querySelector(".tile dd")!.textContent!.replace(",", "")) > 10
      );
      await page.locator("[aria-label='Features of the device'] .acknowledged").first().waitFor();
      let isLit = false;
      const lit = page.locator("tr[data-field=capacity].lit").waitFor().finally(() => isLit = true);
      lit.catch(() => {}); // Awaited below
      // Repeatedly: the light is on for less than a second, which a busy browser may miss
      while (!isLit) {
        await blk.capacitySectors();
        await new Promise((resolve) => setTimeout(resolve, 300));
      }
      await lit;
      await page.locator("tr[data-field=capacity]:not(.lit).read").waitFor();
      await page.locator(".bars dt", { hasText: "OUT" }).waitFor();
      isLoaded = false;
      await load;

      // A dial that one turns, by the keyboard alone
      const focusOn = async (selector: string) => {
        for (let i = 0; i < 60; i++) {
          if (await page.evaluate((it) => document.activeElement!.matches(it), selector)) return;
          await page.keyboard.press("Tab");
        }
        throw new Error(`Expected Tab to reach ${selector}`);
      };
      await focusOn("nav a");
      for (let i = 0; !page.url().endsWith("#sensor") && i < 4; i++) {
        await page.keyboard.press("ArrowDown");
      }
      await focusOn(".card button");
      await page.keyboard.press("Enter");
      await page.locator(".dial input").waitFor();
      await focusOn(".dial input");
      for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowRight");
      await page.locator(".dial text", { hasText: /^3$/ }).waitFor();

      // Keys go to the guest until Shift+Escape
      await using typist = await VirtioDriver.start(`${directory}/keyboard.sock`, {
        queues: [16, 4],
        timeoutMs: TIMEOUT_MS,
      });
      const events = Array.from({ length: 4 }, () => typist.request(0, [], [8]));
      await page.goto(`${url}#keyboard`);
      await page.locator(".pad").focus();
      await page.keyboard.press("Enter");
      await page.locator(".pad.on").waitFor();
      await page.keyboard.press("a");
      const codes = (await Promise.all(events)).map(({ data: [bytes] }) => {
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        return [view.getUint16(0, true), view.getUint16(2, true), view.getUint32(4, true)];
      });
      assertEquals(codes, [[1, 30, 1], [0, 0, 0], [1, 30, 0], [0, 0, 0]]);
      await page.keyboard.press("Shift+Escape");
      await page.locator(".pad:not(.on)").waitFor();

      // A device that is gone stays, as gone
      await disk.stop();
      await page.locator("nav a", { hasText: "disk" }).locator(".dot.gone").waitFor();
      assertEquals(problems, []);
      const updates = await page.evaluate(() => Number(document.documentElement.dataset.updates));
      assertGreater(updates, 3);
      assertLess(updates, 10_000);
      assert(!(await page.content()).includes("undefined"));

      // A panel that throws, that is none or that does not load ends nothing else; nor does a hash
      const panels = {
        throws: 'export default () => { throw new Error("no luck"); };',
        empty: "export const level = 1;",
        broken: "export default (",
      };
      await using stack = new AsyncDisposableStack();
      for (const [name, text] of Object.entries(panels)) {
        await Deno.writeTextFile(`${directory}/${name}.ts`, text);
        const device = { ...rng, panel: `file://${directory}/${name}.ts` };
        const host = stack.use(await DeviceHost.open(device, { log() {} }));
        stack.use(new ControlSocket(host, `${directory}/${name}.ctl`));
      }
      for (const name of Object.keys(panels)) {
        await page.goto(`${url}#${name}`);
        await page.locator("main h1", { hasText: name }).waitFor();
        await page.locator("[aria-label=Device] .problem").waitFor();
        await page.locator("[aria-label=Status]").waitFor();
      }
      await page.goto(`${url}#%`);
      await page.locator("main h1").waitFor();

      // A browser beyond the limit is live as soon as there is room
      await page.goto("about:blank");
      const others: Response[] = [];
      while (others.at(-1)?.status !== 503) others.push(await fetch(`${url}events`));
      await page.goto(url);
      await page.locator(".state.gone", { hasText: "connecting" }).waitFor();
      for (const { body } of others) await body!.cancel();
      await page.locator(".state.live", { hasText: "live" }).waitFor();
    } finally {
      await browser.close();
      await Deno.remove(directory, { recursive: true });
    }
  },
});
