/** `deno task screenshots`: makes README's pictures again, of a real guest's devices. */
import type { Page } from "playwright-core";
import { startChromium } from "./lib/chromium.ts";
import { kill, lines, spawn } from "./lib/process.ts";
import { defineTool, runTool, teller } from "./lib/tool.ts";
import { ToolError } from "./lib/tool_error.ts";

const SCREENSHOTS = defineTool({
  name: "screenshots",
  usage: "[FOLDER]",
  hasOperands: true,
  about: "Makes the pictures of vhostd web in docs/, or FOLDER, of a guest that it boots.\n",
  options: {},
  notes: "It downloads Chromium when it is missing.\n",
  check({ operands: [folder = "docs", ...more] }) {
    if (more.length > 0) throw new ToolError("Expected one folder at most");
    return folder;
  },
});

const tell = teller("screenshots");

/** What the guest does meanwhile, in turn, for as long as pictures take. */
const WORK = "for i in $(seq 40); do dd if=/dev/vda of=/dev/null bs=16k count=300 " +
  "skip=$((i * 37)); dd if=/dev/zero of=/root/file bs=16k count=64; sync; " +
  "head -c 4096 /dev/hwrng >/dev/null; nslookup deno.com; sleep 1; done";

/** Time for rates to fill the charts. */
const WARM_UP_MS = 30_000;

/** The pictures: the device, the colours, and what the height shows. */
const PICTURES = [
  { file: "web-disk.png", device: /^blk/, scheme: "light", height: 1480 },
  { file: "web-network.png", device: /^net/, scheme: "dark", height: 760 },
] as const;

async function main(folder: string): Promise<number> {
  const guest = spawn(Deno.execPath(), [
    ...["run", "--allow-all", new URL("./guest/main.ts", import.meta.url).pathname, "--web"],
    ...["--device=blk --num-queues=2", "--cpus=2", `--run=${WORK}`],
  ], { stdin: "null", stdout: "null", stderr: "piped" });
  const said: string[] = [];
  try {
    tell("booting a guest");
    for await (const line of lines(guest.stderr)) {
      said.push(line);
      const [url] = /http:\S+/.exec(line) ?? [];
      if (url === undefined) continue;
      await take(url, folder);
      return 0;
    }
    throw new ToolError(`the guest ended: ${said.slice(-3).join("; ")}`);
  } finally {
    kill(guest, "SIGTERM");
    await guest.status;
  }
}

async function take(url: string, folder: string): Promise<void> {
  const browser = await startChromium();
  try {
    const pages: Page[] = [];
    for (const { scheme, height } of PICTURES) {
      const viewport = { width: 1200, height };
      const context = await browser.newContext({ viewport, colorScheme: scheme });
      const page = await context.newPage();
      pages.push(page);
      await page.goto(url);
    }
    for (const [i, { device }] of PICTURES.entries()) {
      await pages[i].locator("nav a", { hasText: device }).click();
      await pages[i].locator(".queue.running").first().waitFor({ timeout: 120_000 });
      const watch = pages[i].getByRole("button", { name: "Watch packets" });
      if (await watch.count() > 0) await watch.click();
    }
    await pages[0].waitForTimeout(WARM_UP_MS);
    for (const [i, { file }] of PICTURES.entries()) {
      await pages[i].screenshot({ path: `${folder}/${file}` });
      tell(`made ${folder}/${file}`);
    }
  } finally {
    await browser.close();
  }
}

if (import.meta.main) await runTool(SCREENSHOTS, main);
