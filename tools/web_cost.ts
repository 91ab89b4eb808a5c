/** `deno task bench:web`: how soon the page of `vhostd web` is there, and what it costs meanwhile. */
/// <reference lib="dom" />
import type { Browser } from "playwright-core";
import { VirtioDriver } from "../src/frontend/mod.ts";
import { summary } from "./bench/statistics.ts";
import { Backend, vhostdCommand } from "./lib/backend.ts";
import { startChromium } from "./lib/chromium.ts";
import { processTime } from "./lib/clock.ts";
import { kill, lines, spawn } from "./lib/process.ts";
import { endOnSignals, Scratch } from "./lib/scratch.ts";
import { defineTool, runTool, teller } from "./lib/tool.ts";
import { ToolError } from "./lib/tool_error.ts";

const COST = defineTool({
  name: "bench:web",
  usage: "[--pages=N] [--devices=N] [--seconds=N]",
  about:
    "Measures the page of vhostd web in Chromium, with devices that all change all the time.\n",
  options: {
    pages: {
      ...{ type: "number", placeholder: "N", least: 1, most: 100, default: 9 },
      about: "the number of times that the page is opened, each in an empty browser",
    },
    devices: {
      ...{ type: "number", placeholder: "N", least: 1, most: 64, default: 16 },
      about: "the number of devices",
    },
    seconds: {
      ...{ type: "number", placeholder: "N", least: 1, most: 600, default: 10 },
      about: "the time for which processors are measured",
    },
  },
  notes: "It downloads Chromium when it is missing.\n",
  check: ({ values }) => values,
});

const tell = teller(COST.name);

/** Time between two requests to each device: shorter than that between two updates. */
const REQUEST_PERIOD_MS = 20;

/** Run in the page before its own scripts: notes when a device is there. */
const NOTE_DEVICE = `
new MutationObserver((_, observer) => {
  if (document.querySelector(".tiles") === null) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => document.documentElement.dataset.at = performance.now()));
}).observe(document, { childList: true, subtree: true });`;

/** Milliseconds from the navigation to the first paint, and to a paint with a device. */
async function openPage(browser: Browser, url: string): Promise<{ paint: number; device: number }> {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.addInitScript(NOTE_DEVICE);
    await page.goto(url);
    await page.waitForFunction(() => document.documentElement.dataset.at !== undefined);
    return await page.evaluate(() => ({
      device: Number(document.documentElement.dataset.at),
      paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    }));
  } finally {
    await context.close();
  }
}

/** The processes that a process has started, and theirs. */
function descendants(pid: number): number[] {
  const children = [...Deno.readDirSync(`/proc/${pid}/task`)].flatMap(({ name }) =>
    Deno.readTextFileSync(`/proc/${pid}/task/${name}/children`).split(" ").filter(Boolean)
  );
  return children.map(Number).flatMap((child) => [child, ...descendants(child)]);
}

/** Measures what part of a processor some processes use together. */
async function shares<N extends string>(
  processes: Record<N, number[]>,
  seconds: number,
): Promise<Record<N, number>> {
  const times = () =>
    Object.entries<number[]>(processes).map(([name, pids]) =>
      [name, pids.reduce((sum, pid) => sum + processTime(pid), 0)] as const
    );
  const before = new Map(times()), start = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const ns = (performance.now() - start) * 1e6;
  const used = times().map(([name, time]) => [name, (time - before.get(name)!) / ns]);
  return Object.fromEntries(used);
}

async function main(
  { pages, devices, seconds }: { pages: number; devices: number; seconds: number },
): Promise<number> {
  endOnSignals();
  using scratch = new Scratch("vhostd-web-cost-");
  const directory = scratch.directory();
  await using stack = new AsyncDisposableStack();
  tell(`starting ${devices} devices`);
  const backends: Backend[] = [];
  let isLoaded = true;
  const loads: Promise<void>[] = [];
  for (let i = 0; i < devices; i++) {
    const socketPath = `${directory}/rng${i}.sock`, controlPath = `${directory}/rng${i}.ctl`;
    const command = vhostdCommand([
      ...["rng", `--socket-path=${socketPath}`, `--control-path=${controlPath}`],
    ]);
    const backend = stack.use(new Backend(command, { socketPath, controlPath }));
    await backend.listening();
    backends.push(backend);
    const driver = stack.use(await VirtioDriver.start(socketPath));
    loads.push((async () => {
      while (isLoaded) {
        await driver.request(0, [], [64]);
        await new Promise((resolve) => setTimeout(resolve, REQUEST_PERIOD_MS));
      }
    })());
  }
  const web = spawn(...vhostdWeb(directory));
  stack.defer(async () => {
    isLoaded = false;
    await Promise.all(loads);
    kill(web, "SIGTERM");
    await web.status;
  });
  const { value: url } = await lines(web.stdout).next();
  if (url === undefined) throw new ToolError("vhostd web printed no URL");
  const browser = await startChromium();
  stack.defer(() => browser.close());

  const served = backends.map(({ pid }) => pid);
  const alone = await shares({ served }, seconds);
  const opened = [];
  for (let i = 0; i < pages; i++) {
    opened.push(await openPage(browser, url));
    const { paint, device } = opened.at(-1)!;
    tell(`page ${i + 1}: first paint after ${paint.toFixed(0)} ms, device ${device.toFixed(0)} ms`);
  }
  const page = await browser.newPage();
  await page.goto(url);
  await page.locator(".tiles").waitFor();
  const updates = () => page.evaluate(() => Number(document.documentElement.dataset.updates));
  const before = await updates(), start = performance.now();
  const chromium = descendants(Deno.pid).filter((pid) =>
    Deno.readTextFileSync(`/proc/${pid}/comm`).startsWith("chrom")
  );
  const watched = await shares({ served, web: [web.pid], chromium }, seconds);
  const rate = (await updates() - before) / ((performance.now() - start) / 1000);
  for (const [what, key] of [["first paint", "paint"], ["a device", "device"]] as const) {
    const { median, least, most } = summary(opened.map((times) => times[key]))!;
    console.log(
      `${what.padEnd(11)}  ${median.toFixed(0)} ms (${least.toFixed(0)} to ${most.toFixed(0)})`,
    );
  }
  const percent = (share: number) => `${(share * 100).toFixed(1)} % of a processor`;
  console.log(`updates      ${rate.toFixed(1)} per second of ${devices} devices`);
  console.log(`vhostd web   ${percent(watched.web)}`);
  console.log(
    `devices      ${percent(watched.served - alone.served)} more than without the page`,
  );
  console.log(`Chromium     ${percent(watched.chromium)}`);
  return 0;
}

function vhostdWeb(directory: string): Parameters<typeof spawn> {
  const [program, ...args] = vhostdCommand(["web", "--listen=127.0.0.1:0", directory]);
  return [program, args, { stdin: "null", stdout: "piped", stderr: "inherit" }];
}

if (import.meta.main) await runTool(COST, main);
