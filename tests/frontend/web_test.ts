/** The server of `vhostd web`: what it refuses, and how it follows devices. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import sensor from "../../backends/sensor/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import { DeviceHost } from "../../src/runtime/mod.ts";
import type { AnyDevice } from "../../src/virtio/mod.ts";
import { applyChanges } from "../../src/web/client/apply.ts";
import { DeviceHub, MAX_ASKED, MAX_DEVICES, type PageState } from "../../src/web/device_hub.ts";
import { linesOf } from "../../src/web/lines.ts";
import { MAX_BODY_BYTES } from "../../src/web/refusal.ts";
import { MAX_BROWSERS } from "../../src/web/web_server.ts";
import { runCli } from "./lib/cli_process.ts";
import { LyingSocket } from "./lib/lying_socket.ts";
import { WebPage } from "./lib/web_page.ts";

/** A directory with control sockets. */
class Devices implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync();

  /** Opens a device with a control socket. */
  async open(name: string, device: AnyDevice = sensor): Promise<AsyncDisposable> {
    await using made = new AsyncDisposableStack();
    const host = made.use(await DeviceHost.open(device, { log() {} }));
    made.use(new ControlSocket(host, `${this.directory}/${name}`));
    return made.move();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await watchesEnded();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** The page's state as a browser has it, after each event. */
async function* events(page: WebPage, signal: AbortSignal): AsyncGenerator<PageState> {
  const response = await fetch(new URL("events", page.server.url), { signal });
  let state: PageState | undefined;
  try {
    for await (const line of linesOf(response.body!)) {
      if (line === "") continue;
      const value = JSON.parse(line.replace(/^data: /, ""));
      state = state === undefined ? value as PageState : applyChanges(state, value);
      yield state;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** Awaits a state of the page. */
async function until(
  states: AsyncGenerator<PageState>,
  isSo: (state: PageState) => boolean,
): Promise<PageState> {
  for (;;) {
    const { value, done } = await states.next();
    if (done) throw new Error("Expected further events");
    if (isSo(value)) return value;
  }
}

Deno.test("a hundred hostile requests are refused", async () => {
  await using devices = await new Devices();
  await using _device = await devices.open("sensor.ctl");
  await using page = await WebPage.start({ paths: [devices.directory] });
  const { host, origin, pathname: root } = page.url;
  const set = `${root}devices/sensor/set`;
  const get = (path: string, headers = `Host: ${host}`) =>
    `GET ${path} HTTP/1.1\r\n${headers}\r\nConnection: close\r\n\r\n`;
  const body = '{"name":"a","value":1}';
  const post = (path: string, headers: string) =>
    `POST ${path} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\nContent-Length: ${body.length}\r\n` +
    `Connection: close\r\n\r\n${body}`;
  const files = [
    ...["", "events", "src/web/client/main.ts", "lib/preact.js", "devices/sensor/record"],
    "devices/sensor/set",
  ];
  const wrongTokens = [
    ...["", "x", "0".repeat(22), root.slice(1, -2), `${root.slice(1, -1)}x`, "%00", "..", "."],
    ...[`${root.slice(1, -1)}%2f..`, root.slice(1, -1).toLowerCase() + "-"],
  ];
  const wrongHosts = [
    ...[`web.${host}`, `${host}:80`, "*"],
    ...["evil.example", `evil.example:${page.url.port}`, "127.0.0.1", "127.0.0.1:1", "localhost"],
    ...[`127.0.0.2:${page.url.port}`, `127.0.0.1.evil.example:${page.url.port}`, "", "[::1]"],
    ...[`[::1]:${page.url.port}`, `user@${host}`, `2130706433:${page.url.port}`, `${host}0`],
  ];
  const wrongPaths = [
    ...["../main.ts", "src/../deno.json", "deno.json", "src/web/web_server.ts", "main.ts"],
    ...[
      "src/web/client/../../../deno.json",
      "src/web/client/..%2f..%2f..%2fdeno.json",
      "etc/passwd",
    ],
    ...["src/web/client/main.ts%00.css", "src/web/client//main.ts", "panels/0/mod.ts", "panels/"],
    ...["panels/0/../../etc/passwd", "panels/-1/mod.ts", "lib/../preact.js", "lib/__proto__.js"],
    ...["lib/constructor.js", "devices/sensor/none", "devices/__proto__/record", "devices/sensor/"],
    ...["devices/none/record", "devices/sensor/set", "devices/sensor/..", "devices//record"],
    ...["devices/sensor%2frecord", "devices/sensor/record/x", "events/x", "chart.css/", "%2e%2e/"],
    ...["src/web/client/style.css%20", "backends/net/mod.js", `${"x".repeat(2000)}`],
  ];
  const json = `Content-Type: application/json\r\nOrigin: ${origin}`;
  const cases: (readonly [string, readonly number[]])[] = [
    ...wrongTokens.flatMap((token) =>
      files.slice(0, 2).map((file) => [get(`/${token}/${file}`), [403, 400]] as const)
    ),
    ...wrongHosts.flatMap((name) => [[get(root, `Host: ${name}`), [403, 400]] as const]),
    ...["http://evil.example", "null", "https://127.0.0.1", `http://localhost.${host}`].flatMap(
      (other) =>
        files.slice(0, 4).map((file) =>
          [get(root + file, `Host: ${host}\r\nOrigin: ${other}`), [403]] as const
        ),
    ),
    ...["cross-site", "same-site", "x"].map((site) =>
      [get(root, `Host: ${host}\r\nSec-Fetch-Site: ${site}`), [403]] as const
    ),
    ...wrongPaths.map((path) => [get(root + path), [404, 403, 414, 400]] as const),
    ...["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND"].map((method) =>
      [get(root).replace("GET", method), [405, 400, 403]] as const
    ),
    [post(set, json), [403]],
    [post(`${root}devices/sensor/resize`, json), [403]],
    [post(root, json), [403]],
    [post(set, "Content-Type: text/plain"), [403]],
    ["GET / HTTP/1.1\r\n\r\n", [400, 403]],
    ["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", [400, 0]],
    [`GET ${root} HTTP/1.1\r\nHost: ${host}\r\nHost: evil.example\r\n\r\n`, [400, 403]],
  ];
  assert(cases.length >= 100, `${cases.length} cases`);
  for (const [text, expected] of cases) {
    const status = await page.raw(text);
    assert(expected.includes(status), `${status} for ${JSON.stringify(text)}`);
  }
  assertEquals((await page.request(""))[0], 200);
});

Deno.test("with --control a command needs this page's Origin, JSON and a limited body", async () => {
  await using devices = await new Devices();
  await using _device = await devices.open("sensor.ctl");
  await using page = await WebPage.start({ paths: [devices.directory], control: true });
  const ended = new AbortController();
  const states = events(page, ended.signal);
  await until(states, ({ devices: { sensor } }) => sensor?.isLive);
  const { origin } = page.url;
  const body = '{"name":"door","value":1}';
  const post = (headers: Record<string, string>, sent: BodyInit = body) =>
    page.request("devices/sensor/set", { method: "POST", headers, body: sent });
  const type = { "content-type": "application/json" };
  assertEquals((await post(type))[0], 403);
  assertEquals((await post({ ...type, origin: "http://evil.example" }))[0], 403);
  assertEquals((await post({ origin, "content-type": "text/plain" }))[0], 415);
  assertEquals((await post({ ...type, origin }, "x".repeat(MAX_BODY_BYTES + 1)))[0], 413);
  assertEquals((await post({ ...type, origin }, new Blob([body]).stream()))[0], 411);
  assertEquals(await page.command("devices/sensor/set", { name: 1 }), [
    400,
    '{"error":"Expected a name, a value and perhaps a unit"}\n',
  ]);
  const [status, answer] = await page.command("devices/sensor/set", JSON.parse(body));
  assertEquals([status, JSON.parse(answer).value], [200, 1]);
  const { devices: { sensor } } = await until(
    states,
    ({ devices: { sensor } }) => (sensor.live!.record.report.readings as unknown[]).length === 1,
  );
  // Not trace, which writes files
  assertEquals(sensor.commands, ["set"]);
  ended.abort();
  await states.return(undefined);
});

Deno.test("devices that come, go and come back are followed; other sockets are left alone", async () => {
  await using devices = await new Devices();
  let accepted = 0;
  const other = Deno.listen({ transport: "unix", path: `${devices.directory}/vhost.sock` });
  const accepting = other.accept().then((connection) => (accepted++, connection.close()), () => {});
  await using page = await WebPage.start({ paths: [devices.directory] });
  const ended = new AbortController();
  const states = events(page, ended.signal);
  assertEquals((await until(states, () => true)).devices, {});
  {
    await using _device = await devices.open("a.ctl");
    const { a } = (await until(states, ({ devices: { a } }) => a?.isLive)).devices;
    assertEquals([a.live!.record.device.name, a.fields.length > 0], ["sensor", true]);
  }
  const { a } = (await until(states, ({ devices: { a } }) => !a.isLive)).devices;
  assertStringIncludes(a.problem!, "waiting for it");
  assertEquals(a.live!.record.device.name, "sensor");
  {
    await using _device = await devices.open("a.ctl");
    await using _second = await devices.open("b.ctl");
    await until(states, ({ devices: { a, b } }) => a.isLive && b?.isLive);
  }
  assertEquals(accepted, 0);
  other.close();
  await accepting;
  ended.abort();
  await states.return(undefined);
});

Deno.test("control sockets that lie are told apart, and harm neither the page nor other devices", async () => {
  await using devices = await new Devices();
  await using host = await DeviceHost.open(sensor, { log() {} });
  const live = JSON.stringify({ record: host.record.toJSON(), config: "00" });
  const index = { device: { name: "x", id: 1, about: "x" }, requests: [] };
  const deep = "[".repeat(200_000) + "]".repeat(200_000);
  /** An index, and what changes tell. */
  const lies: Record<string, [index: () => Iterable<string>, changes: () => Iterable<string>]> = {};
  const lie = (name: string, changes: string[], more: object = {}) =>
    lies[name] = [() => [JSON.stringify({ ...index, ...more })], () => changes];
  const text = (name: string, ...texts: string[]) => lies[name] = [() => texts, () => []];
  lie("deep-state", [`{"record":${deep},"config":""}\n`]);
  lie("deep-change", [`${live}\n`, `[["record","report",${deep}]]\n`, "…"]);
  lie("long-list", [`${live}\n`, '[["record","queues","length",4294967295]]\n', "…"]);
  lie("far-item", [`${live}\n`, '[["record","queues",4294967294,1]]\n', "…"]);
  lie("other-type", [`${live}\n`, '[["record","queues",0,"requests","many"]]\n', "…"]);
  lie("no-bytes", [`${live}\n`, '[["config","xy"]]\n', "…"]);
  lie("no-path", [`${live}\n`, "[[]]\n", "…"]);
  lie("no-list", [`${live}\n`, "7\n", "…"]);
  lie("no-record", ['{"record":{"queues":7},"config":"00"}\n', "…"]);
  lie("old", [], { config: 7 });
  lie("none", [`${live}\n`, "…"], { instances: [] });
  lie("crowd", [`${live}\n`, "…"], { instances: Array.from({ length: 5000 }, (_, i) => `${i}`) });
  lie("silent", [`${live}\n`, "…"]);
  lie("speechless", ["…"]);
  text("deep-index", `{"requests":[],"config":${deep}}`);
  text("other", "[]");
  lie("html", [`${live}\n`, "…"], { requests: [{ method: "GET", path: "/page", about: "" }] });
  lies["endless-index"] = [function* () {
    for (;;) yield " ".repeat(65_536);
  }, () => []];
  await using made = new AsyncDisposableStack();
  const sockets = Object.entries(lies).map(([name, [index, changes]]) =>
    made.use(
      new LyingSocket(`${devices.directory}/${name}.ctl`, {
        ...{ "/": index, "/changes": changes, "/page": () => ["<script>"] },
      }, "text/html"),
    )
  );
  await using _device = await devices.open("true.ctl");
  await using page = await WebPage.start({ paths: [devices.directory] });
  const ended = new AbortController();
  const states = events(page, ended.signal);
  const problems = new Map<string, string>();
  await until(states, ({ devices }) => devices.html?.isLive);
  const answer = await fetch(new URL("devices/html/page", page.server.url));
  assertEquals([answer.status, answer.headers.get("content-type")], [
    ...[200, "application/octet-stream"],
  ]);
  await answer.body!.cancel();
  const { devices: { true: own } } = await until(states, ({ devices }) => {
    for (const [name, { isLive, problem }] of Object.entries(devices)) {
      if (!isLive) problems.set(name, problem!);
    }
    return problems.size === sockets.length;
  });
  for (const [name, problem] of problems) {
    assert(/^(Expected|Nothing answers)/.test(problem), `${name}: ${problem}`);
  }
  assert(sockets.every(({ open }) => open < 70));
  // The device that does not lie has further changes
  const { at } = own.live!.record;
  await until(states, ({ devices }) => devices.true.live!.record.at > at);
  ended.abort();
  await states.return(undefined);
});

Deno.test("devices beyond the limit take the places of those that are gone", async () => {
  await using devices = await new Devices();
  for (let i = 0; i < MAX_DEVICES + 10; i++) {
    Deno.writeTextFileSync(`${devices.directory}/gone${i}.ctl`, "");
  }
  await using _device = await devices.open("last.ctl");
  const hub = new DeviceHub([devices.directory], {
    control: false,
    servePanel: () => null,
    log() {},
  });
  const live = Promise.withResolvers<void>();
  const leave = hub.listen(() => {
    const { last, ...others } = hub.state.devices;
    if (last?.isLive && Object.keys(others).length === MAX_DEVICES - 1) live.resolve();
  });
  await live.promise;
  leave();
});

Deno.test("the page counts and names devices beyond the limit, and shows them when there is room", async () => {
  await using devices = await new Devices();
  await using opened = new AsyncDisposableStack();
  // One device with many sockets: a process has no room for so much guest memory.
  const host = opened.use(await DeviceHost.open(sensor, { log() {} }));
  const names = Array.from({ length: MAX_DEVICES + 2 }, (_, i) => `d${i}.ctl`);
  const sockets = names.map((name) =>
    opened.use(new ControlSocket(host, `${devices.directory}/${name}`))
  );
  const logged: string[] = [];
  await using page = await WebPage.start({
    paths: [devices.directory],
    log: (line) => logged.push(line),
  });
  const ended = new AbortController();
  const states = events(page, ended.signal);
  const { devices: shown, leftOut } = await until(
    states,
    (state) => Object.keys(state.devices).length + state.leftOut.count === names.length,
  );
  const paths = Object.values(shown).map(({ path }) => path);
  assertEquals(paths.length, MAX_DEVICES);
  assertEquals(
    [...paths, ...leftOut.names].sort(),
    names.map((name) => `${devices.directory}/${name}`).sort(),
  );
  assertEquals(logged.length, 1);
  assertStringIncludes(logged[0], "The page shows up to 64 devices; it leaves out ");
  // The place of a device that is gone is for one of the others.
  await sockets[names.findIndex((name) => paths[0].endsWith(`/${name}`))][Symbol.asyncDispose]();
  const live = (state: PageState) => Object.values(state.devices).filter(({ isLive }) => isLive);
  await until(
    states,
    (state) => state.leftOut.count === 1 && live(state).length === MAX_DEVICES,
  );
  ended.abort();
  await states.return(undefined);
});

Deno.test("devices of other users, however many, leave a place for ours", async () => {
  await using devices = await new Devices();
  await using opened = new AsyncDisposableStack();
  const host = opened.use(await DeviceHost.open(sensor, { log() {} }));
  const open = (name: string) => {
    const path = `${devices.directory}/${name}`;
    opened.use(new ControlSocket(host, path));
    return path;
  };
  for (let i = 0; i < MAX_DEVICES; i++) await Deno.chown(open(`theirs${i}.ctl`), 1, 1);
  await using page = await WebPage.start({ paths: [devices.directory] });
  const ended = new AbortController();
  const states = events(page, ended.signal);
  const live = (state: PageState) => Object.values(state.devices).filter(({ isLive }) => isLive);
  await until(states, (state) => live(state).length === MAX_DEVICES);
  open("ours.ctl");
  const { leftOut } = await until(
    states,
    (state) => state.devices.ours?.isLive && state.leftOut.count === 1,
  );
  assertStringIncludes(leftOut.names[0], "/theirs");
  ended.abort();
  await states.return(undefined);
});

Deno.test("devices are followed again at once after the last browser has left", async () => {
  await using devices = await new Devices();
  await using _device = await devices.open("sensor.ctl");
  const hub = new DeviceHub([devices.directory], {
    control: false,
    servePanel: () => null,
    log() {},
  });
  hub.listen(() => {})(); // While the directory is still being read
  const live = Promise.withResolvers<void>();
  const leave = hub.listen(() => hub.state.devices.sensor?.isLive && live.resolve());
  await live.promise;
  leave();
  assertEquals(hub.state.devices, {});
});

Deno.test("a device's own panel is part of the page, with the modules beside it and nothing else", async () => {
  await using devices = await new Devices();
  const folder = `${devices.directory}/my-device`;
  await Deno.mkdir(folder);
  await Deno.writeTextFile(`${folder}/panel.ts`, "export const level: number = 1;");
  await Deno.writeTextFile(`${folder}/parts.ts`, "export type Part = 1;");
  await Deno.writeTextFile(`${folder}/notes.txt`, "mine");
  await Deno.writeTextFile(`${devices.directory}/outside.ts`, "export {};");
  const own = { ...sensor, panel: `file://${folder}/panel.ts` };
  await using _device = await devices.open("own.ctl", own);
  await using _unsafe = await devices.open("unsafe.ctl", {
    ...sensor,
    panel: "file:///etc/passwd",
  });
  await using page = await WebPage.start({ paths: [devices.directory] });
  const ended = new AbortController();
  const states = events(page, ended.signal);
  const { devices: shown } = await until(
    states,
    ({ devices: { own, unsafe } }) => own?.isLive && unsafe?.isLive,
  );
  assertEquals([shown.own.panel, shown.unsafe.panel], ["panels/0/panel.ts", null]);
  assertEquals(await page.request("panels/0/panel.ts"), [200, "export const level         = 1;"]);
  assertEquals((await page.request("panels/0/parts.ts"))[0], 200);
  for (const path of ["notes.txt", "none.ts", "../outside.ts", "..%2foutside.ts", "/outside.ts"]) {
    assertEquals((await page.request(`panels/0/${path}`))[0], 404, path);
  }
  ended.abort();
  await states.return(undefined);
});

Deno.test("a limited number of browsers get events, and the next one when one is gone", async () => {
  await using page = await WebPage.start();
  const open = () => {
    const ended = new AbortController();
    return { ended, states: events(page, ended.signal) };
  };
  const browsers = Array.from({ length: MAX_BROWSERS }, open);
  for (const { states } of browsers) await states.next();
  assertEquals(await page.request("events"), [503, "Expected at most 32 browsers; close one\n"]);
  for (const { ended, states } of browsers) {
    ended.abort();
    await states.return(undefined);
  }
  // The server learns of that on its own time
  for (;;) {
    const { ended, states } = open();
    const first = await states.next().catch(() => undefined);
    ended.abort();
    await states.return(undefined);
    if (first?.value !== undefined) break;
  }
});

Deno.test("vhostd web ends although a browser does not read, and a device does not answer", async () => {
  await using devices = await new Devices();
  await using host = await DeviceHost.open(sensor, { log() {} });
  const record = { ...host.record.toJSON(), report: { long: "x".repeat(2 ** 23) } };
  const requests = [{ method: "GET", path: "/slow", about: "" }];
  await using _socket = new LyingSocket(`${devices.directory}/long.ctl`, {
    "/": () => [JSON.stringify({ device: { name: "x", id: 1, about: "x" }, requests })],
    "/changes": () => [`${JSON.stringify({ record, config: "" })}\n`, "…"],
    "/slow": () => ["…"],
  });
  const page = await WebPage.start({ paths: [devices.directory] });
  const { host: ownHost, port, pathname } = page.url;
  const ended = new AbortController();
  const states = events(page, ended.signal);
  await until(states, ({ devices: { long } }) => long?.isLive);
  using browser = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  const request = `GET ${pathname}events HTTP/1.1\r\nHost: ${ownHost}\r\n\r\n`;
  await browser.write(new TextEncoder().encode(request));
  await browser.read(new Uint8Array(16));
  const asked = Array.from({ length: MAX_ASKED + 1 }, () => page.request("devices/long/slow"));
  assertEquals((await Promise.any(asked))[0], 503);
  ended.abort();
  await states.return(undefined);
  await page[Symbol.asyncDispose]();
  await Promise.allSettled(asked);
});

Deno.test("vhostd web tells in one line what is wrong with its arguments", async () => {
  const file = Deno.makeTempFileSync();
  const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr as Deno.NetAddr;
  try {
    const results = await Promise.all([
      runCli(["web", "--listen=8420"]),
      runCli(["web", "--listen=127.0.0.1:99999"]),
      runCli(["web", file]),
      runCli(["web", `--listen=127.0.0.1:${port}`]),
    ]);
    assertEquals(results.map(({ status, stderr }) => [status, stderr]), [
      [
        2,
        "vhostd: Expected an address and a port as --listen, such as 127.0.0.1:8420, got 8420\n",
      ],
      [
        2,
        "vhostd: Expected an address and a port as --listen, such as 127.0.0.1:8420, got 127.0.0.1:99999\n",
      ],
      [
        2,
        `vhostd: Expected a control socket or a directory of control sockets at ${file}, got a file\n`,
      ],
      [
        1,
        `vhostd: Cannot listen on 127.0.0.1:${port}: it is in use; give another --listen\n`,
      ],
    ]);
  } finally {
    taken.close();
    await Deno.remove(file);
  }
});
