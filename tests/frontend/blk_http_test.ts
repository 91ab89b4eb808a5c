import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import blk from "../../backends/blk/mod.ts";
import { HttpFault } from "../../backends/blk/http/answer.ts";
import { RemoteFile } from "../../backends/blk/http/remote_file.ts";
import { serve } from "../../mod.ts";
import { blkStatus } from "../../src/frontend/mod.ts";
import { runCli } from "./lib/cli_process.ts";
import { makeCertificates } from "./lib/certificates.ts";
import { DiskServer, DiskServerProcess, type Script } from "./lib/disk_server.ts";
import { HttpDisk, MIB, PATIENT } from "./lib/http_disk.ts";

const { IOERR } = blkStatus;

/** How a file is accessed, but for its URL. */
const ACCESS = { connections: 1, timeoutMs: 60_000, retryMs: 0, partMs: 60_000 };

const DISK_BYTES = 3 * MIB + 700;

Deno.test("blk serves a disk of a web server, rounded up to sectors by zeroes", async () => {
  await using server = new DiskServer(DISK_BYTES);
  await using disk = await HttpDisk.start(server);
  const { driver } = disk;
  assertEquals(await driver.config.u64(0), BigInt(Math.ceil(DISK_BYTES / 512)));
  assertEquals((driver.features & 1n << 5n) !== 0n, true); // RO
  await disk.expectRead(Math.floor(DISK_BYTES / 512) * 512, 512);
  await disk.expectRead(0, 4096);
  await disk.expectRead(MIB - 4096, MIB);
  for (let at = 0; at < 3 * MIB; at += 65536) await disk.expectRead(at, 65536);
  const chunks = server.ranges.map(({ from }) => from);
  assertEquals(chunks.length, new Set(chunks).size, "each chunk is fetched once");
});

Deno.test("concurrent reads of a chunk of a web server share one request", async () => {
  await using server = new DiskServer(DISK_BYTES);
  await using disk = await HttpDisk.start(server);
  await Promise.all(
    Array.from({ length: 60 }, (_, i) => disk.expectRead(2 * MIB + i * 4096, 4096)),
  );
  assertEquals(server.ranges.length, 1);
});

Deno.test("a web server without a strong ETag is used by its Last-Modified, and that is said", async () => {
  await using server = new DiskServer(MIB);
  server.etag = 'W/"weak"';
  server.lastModified = new Date(0).toUTCString();
  await using disk = await HttpDisk.start(server, { cache: "off" });
  await disk.expectAll();
  await disk.expectAll();
  await disk.line("has no strong ETag");
  assertEquals(server.ranges.length, 2);
});

const other: [name: string, script: (server: DiskServer) => Script][] = [
  ["an ETag that does not match (412)", () => () => new Response(null, { status: 412 })],
  ["a part of another version", (server) => (request, { from, end }) => {
    return server.part(request, from, end, { etag: '"two"' });
  }],
  ["the whole file (200)", (server) => () => new Response(server.content)],
  ["another part", (server) => (request, { from, end }) => {
    const { length } = server.content;
    return server.part(request, from, end, {
      "content-range": `bytes ${from + 1}-${end}/${length}`,
    });
  }],
  ["a redirection without end", () => ({ url }) => Response.redirect(url)],
  ["404", () => () => new Response(null, { status: 404 })],
];

Deno.test("whatever else a web server sends is an I/O error, never data", async (t) => {
  await using server = new DiskServer((other.length + 1) * MIB);
  await using disk = await HttpDisk.start(server, { storeOptions: "timeout=60,retry=0" });
  let at = 0;
  for (const [name, script] of other) {
    await t.step(name, async () => {
      await disk.expectRead(at, 4096);
      server.script = script(server);
      assertEquals((await disk.disk.read((at += MIB) / 512, 4096)).status, IOERR);
      await disk.expectRead(at - MIB + 8192, 4096); // it has come before
      server.script = undefined;
      await disk.expectRead(at, 4096);
    });
  }
  await disk.line("The web server does not send the disk that was opened: the file has changed");
});

const troubles: [
  name: string,
  /** In seconds. */
  timeout: number,
  script: (server: DiskServer, attempt: number) => Script,
  line: string,
][] = [
  [
    "503 first",
    60,
    (_, attempt) => () => attempt < 2 ? new Response(null, { status: 503 }) : undefined,
    "Expected 206, got 503",
  ],
  ["short bodies", 60, (server, attempt) => (request, { from, end }) => {
    if (attempt > 2) return undefined;
    const whole = server.part(request, from, end);
    const piece = server.content.subarray(from, from + 70_000);
    const headers = new Headers(whole.headers);
    return new Response(
      new ReadableStream({
        start(controller) {
          controller.enqueue(piece);
          controller.close();
        },
      }),
      { status: 206, headers },
    );
  }, ""],
  ["a body that gets stuck", 1, (server, attempt) => (_, { from, end }) => {
    if (attempt > 0) return undefined;
    return new Response(
      new ReadableStream({ start: (stream) => stream.enqueue(server.content.subarray(from, 99)) }),
      { status: 206, headers: server.fields(from, end) },
    );
  }, "nothing came for 1000 ms"],
  [
    "no answer",
    1,
    (_, attempt) => ({ signal }) =>
      attempt > 0 ? undefined : new Promise<Response>((resolve) => {
        signal.addEventListener("abort", () => resolve(new Response()));
      }),
    "nothing came for 1000 ms",
  ],
];
Deno.test("failed requests to a web server are repeated", async (t) => {
  await using server = new DiskServer((troubles.length + 1) * MIB);
  let at = 0;
  for (const [name, timeout, script, line] of troubles) {
    await t.step(name, async () => {
      await using disk = await HttpDisk.start(server, {
        storeOptions: `timeout=${timeout},retry=60`,
      });
      let attempt = 0;
      server.script = (request, range) => script(server, attempt++)(request, range);
      await disk.expectRead(at += MIB, 299_008);
      server.script = undefined;
      await disk.line(`A request to the web server failed: ${line}`);
    });
  }
});

Deno.test("a part of a file that trickles is given up in the end", async () => {
  await using server = new DiskServer(MIB);
  using patient = new RemoteFile({ ...ACCESS, url: server.url });
  const { version } = await patient.first(512);
  using file = new RemoteFile({ ...ACCESS, url: server.url, partMs: 500 });
  let timer: ReturnType<typeof setInterval>;
  server.script = (_, { from, end }) => {
    const stream = new ReadableStream({
      start: (stream) => void (timer = setInterval(() => stream.enqueue(new Uint8Array(1)), 10)),
      cancel: () => clearInterval(timer),
    });
    return new Response(stream, { status: 206, headers: server.fields(from, end) });
  };
  const read = () => file.read(version, 0, new Uint8Array(4096), () => {}, () => {});
  await assertRejects(read, HttpFault, "what was asked for did not come within 500 ms");
});

Deno.test("no message has a URL, in which there may be secrets", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const hungUp = listener.accept().then((connection) => connection.close());
  const url = `http://127.0.0.1:${listener.addr.port}/?secret`;
  using file = new RemoteFile({ ...ACCESS, url });
  const { message } = await assertRejects(() => file.first(512), HttpFault);
  assertEquals(/secret|127\.0\.0\.1/.test(message), false, message);
  await hungUp;
});

Deno.test("a web server that stops and starts again is waited for, for a time", async () => {
  await using server = new DiskServer(3 * MIB);
  await using patient = await HttpDisk.start(server);
  await using impatient = await HttpDisk.start(server, { storeOptions: "timeout=60,retry=0" });
  await server.stop();
  const reading = patient.expectRead(MIB, 4096);
  await patient.line("A request to the web server failed");
  assertEquals((await impatient.disk.read(2 * MIB / 512, 4096)).status, IOERR);
  await impatient.line("The web server does not answer");
  server.start();
  await reading;
  await impatient.expectRead(2 * MIB, 4096);
});

Deno.test("where a web server redirects to is used until that fails, as with links that expire", async () => {
  await using gate = new DiskServer(2 * MIB);
  await using storage = new DiskServer(2 * MIB);
  let links = 0;
  gate.script = () => Response.redirect(`${storage.url}?link=${++links}`);
  let valid = 1;
  storage.script = ({ url }) =>
    url.endsWith(`?link=${valid}`) ? undefined : new Response(null, { status: 403 });
  await using disk = await HttpDisk.start(gate, { storeOptions: `connections=1,${PATIENT}` });
  valid = links + 1;
  await disk.expectRead(0, MIB);
  assertEquals(links, valid);
  valid = links + 1;
  await disk.expectRead(MIB, MIB);
  assertEquals(links, valid);
});

Deno.test("a web server that asks to wait is not asked sooner, but for a last attempt", async () => {
  await using server = new DiskServer(2 * MIB);
  let refused = 0;
  const refuse = (seconds: number) => {
    refused++;
    return new Response(null, { status: 503, headers: { "retry-after": `${seconds}` } });
  };
  {
    await using disk = await HttpDisk.start(server);
    server.script = () => refused === 0 ? refuse(1) : undefined;
    const start = performance.now();
    await disk.expectRead(0, 4096);
    assert(performance.now() - start >= 1000);
  }
  server.script = undefined;
  await using disk = await HttpDisk.start(server, { storeOptions: "timeout=60,retry=2" });
  refused = 0;
  server.script = () => refuse(3600);
  assertEquals((await disk.disk.read(0, 4096)).status, IOERR);
  assert(refused <= 2, `${refused} requests`);
});

Deno.test("a stop ends reads that wait for a web server, and the disk goes on", async () => {
  await using server = new DiskServer(2 * MIB);
  await using disk = await HttpDisk.start(server, { stopLimitMs: 50 });
  await server.stop();
  const reads = [0, 4096, MIB].map((at) => disk.disk.read(at / 512, 4096));
  await disk.line("A request to the web server failed");
  await disk.driver.stop();
  for (const read of reads) assertEquals((await read).status, IOERR);
  server.start();
  await disk.driver.restart();
  await disk.expectAll();
  assertEquals(disk.lines.filter((line) => line.includes("still waiting")), []);
});

/** `VHOSTD_KILLS=20` for as many. */
const kills = Number(Deno.env.get("VHOSTD_KILLS") ?? 1);

Deno.test(`a web server that is killed and comes back costs no read (${kills} times)`, async () => {
  const bytes = (kills + 1) * 4 * MIB;
  let server = await DiskServerProcess.start(bytes);
  await using disk = await HttpDisk.start(server);
  let restarted = Promise.resolve();
  const restart = async () => {
    await server.kill();
    server = await DiskServerProcess.start(bytes, Number(new URL(server.url).port));
  };
  for (let at = 0; at < bytes; at += MIB / 2) {
    if (at % (4 * MIB) === 2 * MIB && at < kills * 4 * MIB) restarted = restarted.then(restart);
    await disk.expectRead(at, MIB / 2);
  }
  await restarted;
  await server.kill();
});

/** Expects that a disk does not open. */
async function expectRefused(blkFile: string, message: string, storeOptions = PATIENT) {
  const socketPath = `${Deno.makeTempDirSync()}/blk.sock`;
  const options = { blkFile, storeOptions: ["cache=off", storeOptions].join() };
  await assertRejects(() => serve(blk, { socketPath, options }), Error, message);
  Deno.removeSync(new URL(".", `file://${socketPath}`), { recursive: true });
}

Deno.test("blk says why it cannot open a disk of a web server", async () => {
  await using server = new DiskServer(MIB);
  const { url } = server;
  const cases: [script: Script, message: string][] = [
    [() => new Response(server.content), `Cannot open ${url}: the server ignores Range`],
    [() => new Response(null, { status: 404 }), `Cannot open ${url}: Expected 206, got 404`],
    [() => Response.redirect(url), `Cannot open ${url}: the server redirects more than 10 times`],
    [() => new Response(null, { status: 416 }), "the file is empty"],
  ];
  for (const [script, message] of cases) {
    server.script = script;
    await expectRefused(url, message);
  }
  server.script = undefined;
  server.content.set(new TextEncoder().encode("QED\0"));
  await expectRefused(url, `${url} looks like an image in the format qed`);
  await expectRefused(url.replace("//", "//me:secret@"), "auth=FILE");
  await expectRefused(url, "Cannot read /none: No such file or directory", "ca=/none");
  await expectRefused(url, "Expected at most 4194304 bytes in /dev/zero", "auth=/dev/zero");
  await expectRefused("https://[", "Expected a URL such as");
  await server.stop();
  const args = ["blk", `--socket-path=${Deno.makeTempDirSync()}/blk.sock`, url];
  const { status, stderr } = await runCli(args);
  assertStringIncludes(stderr, `Cannot open ${url}: Connection refused; the server is needed also`);
  assertEquals(stderr.includes("os error"), false, stderr);
  assertEquals([status, stderr.trimEnd().split("\n").length], [1, 1], stderr);
});

Deno.test("a password goes to the server of the URL alone, and TLS trusts the given CA", async () => {
  const directory = Deno.makeTempDirSync();
  const { ca, cert, key } = await makeCertificates(directory);
  await using elsewhere = new DiskServer(MIB);
  const seen: (string | null)[] = [];
  const seeing: Script = ({ headers }) => void seen.push(headers.get("authorization"));
  elsewhere.script = seeing;
  const tls = { cert: Deno.readTextFileSync(cert), key: Deno.readTextFileSync(key) };
  await using server = new DiskServer(MIB, { tls });
  let isRedirecting = true;
  const script: Script = ({ headers }, { from, end }) => {
    if (headers.get("authorization") !== `Basic ${btoa("me:secret")}`) {
      return new Response(null, { status: 401 });
    }
    if (isRedirecting) return Response.redirect(elsewhere.url);
    return server.part(new Request("http://localhost"), from, end);
  };
  server.script = script;
  Deno.writeTextFileSync(`${directory}/auth`, "me:secret\n");
  Deno.writeTextFileSync(`${directory}/wrong`, "me:wrong\n");
  await expectRefused(server.url, "invalid peer certificate: UnknownIssuer");
  await expectRefused(server.url, "Expected certificates (PEM)", `ca=${directory}/wrong`);
  await expectRefused(server.url, "got 401", `ca=${ca}`);
  await expectRefused(server.url, "got 401", `ca=${ca},auth=${directory}/wrong`);
  const storeOptions = `ca=${ca},auth=${directory}/auth,${PATIENT}`;
  await expectRefused(server.url, "redirects from https to http", storeOptions);
  // Also where the answer would come by https in the end
  elsewhere.script = () => Response.redirect(`${server.url}?again`);
  server.script = (request, { from, end }) =>
    request.url.endsWith("again")
      ? server.part(request, from, end)
      : Response.redirect(elsewhere.url);
  await expectRefused(server.url, "redirects from https to http", storeOptions);
  server.script = script;
  elsewhere.script = seeing;
  isRedirecting = false;
  {
    await using disk = await HttpDisk.start(server, { storeOptions });
    await disk.expectRead(0, 4096);
  }
  await using first = new DiskServer(MIB);
  first.script = () => Response.redirect(elsewhere.url);
  await using disk = await HttpDisk.start(first, {
    storeOptions: `auth=${directory}/auth,${PATIENT}`,
  });
  await disk.expectRead(0, 4096); // both have the same content
  assertEquals(seen, Array(3).fill(null));
  Deno.removeSync(directory, { recursive: true });
});
