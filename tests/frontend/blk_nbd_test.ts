/** Disks of NBD servers: nbdkit and qemu-nbd, and one of ours that lies. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { BlkDriver, blkStatus } from "../../src/frontend/mod.ts";
import { programPath } from "../../tools/guest/programs.ts";
import { NbdServer } from "../../tools/lib/nbd_server.ts";
import { run } from "../../tools/lib/process.ts";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { makeCertificates } from "./lib/certificates.ts";
import { freePort } from "./lib/free_port.ts";
import { NbdPlace } from "./lib/nbd_place.ts";
import { NBD_FLUSH, NBD_READ, reply, ScriptedNbdServer } from "./lib/scripted_nbd_server.ts";

const { OK, IOERR } = blkStatus;
const MIB = 2 ** 20;

/** Feature bits: virtio 1.3, 5.2.3. */
const RO = 1n << 5n, CONFIG_WCE = 1n << 11n, DISCARD = 1n << 13n, WRITE_ZEROES = 1n << 14n;

function numbers(bytes: number, seed: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes).map((_, i) => i * 7 + (i >> 8) + seed);
}

Deno.test("an NBD disk is read and written, flushed, discarded and zeroed", async () => {
  await using place = await NbdPlace.make();
  await using _server = await NbdServer.nbdkit({ at: place.nbd, args: ["64M"] });
  await using vhostd = await place.serve();
  await using driver = await place.driver();
  const disk = new BlkDriver(driver);
  const has = (bit: bigint) => (driver.features & bit) !== 0n;
  assertEquals([RO, CONFIG_WCE, DISCARD, WRITE_ZEROES].map(has), [false, true, true, true]);
  const shapes = [[8192], [1000, 7192], [512, 512, 1024, 6144], [4096, 4096]];
  await Promise.all([0, 1].map(async (queue) => {
    for (let i = 0; i < 40; i++) {
      const sector = (2 * i + queue) * 16, data = numbers(8192, i);
      const parts = shapes[i % shapes.length];
      assertEquals((await disk.write(sector, data, { queue, parts })).status, OK);
      const read = await disk.read(sector, 8192, { queue: 1 - queue, parts: shapes[i % 3] });
      assertEquals([read.status, read.data], [OK, data]);
    }
  }));
  assertEquals((await disk.flush()).status, OK);
  assertEquals((await disk.writeZeroes(16, 16)).status, OK);
  assertEquals((await disk.read(16, 8192)).data, new Uint8Array(8192));
  assertEquals((await disk.discard(32, 16)).status, OK);
  assertEquals((await disk.read(64 * MIB / 512, 512)).status, IOERR);
  await driver.close();
  assertEquals((await vhostd.stop()).status, 0);
});

Deno.test("an NBD disk takes requests that are larger than its server does", async () => {
  await using place = await NbdPlace.make();
  await using _server = await NbdServer.nbdkit({
    ...{ at: place.nbd, filters: ["blocksize-policy"] },
    args: ["64M", "blocksize-maximum=64K", "blocksize-error-policy=error"],
  });
  await using _vhostd = await place.serve();
  await using driver = await place.driver();
  const disk = new BlkDriver(driver);
  const data = numbers(3 * MIB + 512, 3);
  for (const parts of [[data.length], [MIB, 100, 2 * MIB + 412]]) {
    assertEquals((await disk.write(0, new Uint8Array(data.length), { parts })).status, OK);
    assertEquals((await disk.write(0, data, { parts })).status, OK);
    const read = await disk.read(0, data.length, { parts });
    assertEquals([read.status, read.data], [OK, data]);
  }
});

Deno.test("a qcow2 image is served by qemu-nbd", async () => {
  await using place = await NbdPlace.make();
  const image = `${place.directory}/disk.qcow2`;
  await run(await programPath("qemu-img"), ["create", "-q", "-f", "qcow2", image, "64M"]);
  const data = numbers(65_536, 5);
  for (const step of ["write", "read"]) {
    await using _server = await NbdServer.qemuNbd(place.nbd, ["--format=qcow2", image]);
    await using _vhostd = await place.serve(["--store-options=structured=on"]);
    await using driver = await place.driver();
    const disk = new BlkDriver(driver);
    if (step === "write") assertEquals((await disk.write(2048, data)).status, OK);
    assertEquals((await disk.flush()).status, OK);
    const read = await disk.read(2048, data.length);
    assertEquals([read.status, read.data], [OK, data]);
  }
});

/** Expects that disks do not open, each with a line that has a text. */
async function expectRefused(place: NbdPlace, cases: readonly [uri: string, text: string][]) {
  await Promise.all(cases.map(async ([uri, text], i) => {
    const args = ["blk", uri, `--socket-path=${place.blk}.${i}`];
    const { status, stderr } = await runCli(args, { env: place.env });
    assertStringIncludes(stderr, text);
    assertEquals([status, stderr.trimEnd().split("\n").length], [1, 1], stderr);
    assertEquals(stderr.includes("Internal"), false, stderr);
  }));
}

Deno.test("vhostd blk explains what is wrong with an NBD server, in time", async () => {
  await using place = await NbdPlace.make();
  await using _server = await NbdServer.nbdkit({
    ...{ at: place.nbd, filters: ["exportname"], plugin: "memory" },
    args: ["--read-only", "1M", "exportname=disk", "exportname-strict=true"],
  });
  const cases: [uri: string, message: string][] = [
    [`nbd+unix:///disk?socket=${place.nbd}`, "it can only be read; add --read-only"],
    [`nbd+unix:///other?socket=${place.nbd}`, "server has no export named 'other'"],
    [`nbds+unix:///disk?socket=${place.nbd}&tls-verify-peer=0`, "TLS"],
    [`nbd+unix:///?socket=${place.directory}/none`, "No such file"],
    ["nbd://127.0.0.1:1/", "Connection refused"],
    ["nbd://none.invalid/", `Cannot resolve "none.invalid"`],
    [`nbd+unix:///?socket=${place.directory}/large`, "Expected a disk below 8 PiB (2^53 bytes)"],
    [`nbd+unix:///?socket=${place.directory}/larger`, "Expected a disk below 8 PiB (2^53 bytes)"],
  ];
  await using large = new ScriptedNbdServer(`${place.directory}/large`);
  await using larger = new ScriptedNbdServer(`${place.directory}/larger`);
  [large.bytes, larger.bytes] = [2 ** 60, 2 ** 63 + 4096];
  await expectRefused(place, cases);
});

/** Serves a scripted server's disk, and runs a test with a driver for it. */
async function withScript(
  options: string,
  test: (server: ScriptedNbdServer, disk: BlkDriver, vhostd: CliProcess) => Promise<void>,
  prepare?: (server: ScriptedNbdServer) => void,
): Promise<void> {
  await using place = await NbdPlace.make();
  await using server = new ScriptedNbdServer(place.nbd);
  prepare?.(server);
  await using vhostd = await place.serve([`--store-options=${options}`]);
  await using driver = await place.driver();
  await test(server, new BlkDriver(driver), vhostd);
  await driver.close();
  assertEquals((await vhostd.stop()).status, 0);
}

Deno.test("an NBD server that lies or breaks off is an I/O error after some attempts, then all is well", (t) =>
  withScript("reconnect=20", async (server, disk) => {
    const honest = server.answer;
    const lies: [name: string, lie: ScriptedNbdServer["answer"]][] = [
      ["another cookie", ({ cookie, bytes }) => reply(cookie + 77n, 0, bytes)],
      ["no magic", ({ cookie, bytes }) => reply(cookie, 0, bytes, 0x1234)],
      ["ends", () => "end"],
      ["says that it shuts down", ({ cookie }) => reply(cookie, 108)],
    ];
    for (const [name, lie] of lies) {
      await t.step(name, async () => {
        const before = server.count;
        let left = 1;
        server.answer = (request) => left-- > 0 ? lie(request) : honest(request);
        const read = await disk.read(8, 512);
        assertEquals([read.status, read.data], [OK, new Uint8Array(512).fill(7)]);
        assertEquals(server.count, before + 1);
      });
    }
    await t.step("lies again and again", async () => {
      server.answer = () => "end";
      const reading = disk.read(8, 512);
      assertEquals((await reading).status, IOERR);
      server.answer = honest;
      assertEquals((await disk.read(8, 512)).status, OK);
    });
    await t.step("an error", async () => {
      server.answer = ({ cookie }) => reply(cookie, 28);
      assertEquals((await disk.write(8, new Uint8Array(512))).status, IOERR);
      server.answer = honest;
    });
  }));

Deno.test("an NBD server that answers too late is an I/O error in time, and its late data goes nowhere", () =>
  withScript("timeout=1", async (server, disk, vhostd) => {
    const honest = server.answer;
    server.answer = () => "nothing";
    assertEquals((await disk.read(8, 512)).status, IOERR);
    server.answer = honest;
    // A busy machine may be late once more
    while ((await disk.read(8, 512)).status !== OK);
    await vhostd.until("it did not answer for 1 s");
  }));

Deno.test("a stop ends requests that an NBD server does not answer, and the disk goes on", async () => {
  await using place = await NbdPlace.make();
  await using server = new ScriptedNbdServer(place.nbd);
  const { answer } = server;
  await using vhostd = new CliProcess([place.blk, place.uri], {
    ...{ env: place.env, main: new URL("lib/short_stop.ts", import.meta.url).pathname },
  });
  await vhostd.until("serves");
  await using driver = await place.driver();
  const disk = new BlkDriver(driver);
  const arrived = Promise.withResolvers<void>();
  let left = 4;
  server.answer = () => {
    if (--left === 0) arrived.resolve();
    return "nothing";
  };
  const requests = [
    ...[0, 1].map((queue) => disk.read(8, 512, { queue })),
    disk.read(8, 8192, { parts: [512, 7680] }),
    disk.write(8, new Uint8Array(512), { queue: 1 }),
  ];
  await arrived.promise;
  await driver.stop();
  for (const request of requests) assertEquals((await request).status, IOERR);
  server.answer = answer;
  await driver.restart();
  assertEquals((await disk.read(8, 512)).status, OK);
  await driver.close();
  const { status, stderr } = await vhostd.stop();
  assertEquals(
    [status, stderr.includes("its replies came too late for a stop")],
    [0, true],
    stderr,
  );
  assertEquals(stderr.includes("still waiting"), false, stderr);
});

Deno.test("flushes fail once an NBD server is gone that had completed writes, and reads go on", () =>
  withScript("reconnect=20", async (server, disk, vhostd) => {
    assertEquals((await disk.write(0, new Uint8Array(512))).status, OK);
    assertEquals((await disk.flush()).status, OK);
    server.drop();
    await vhostd.until("is lost");
    assertEquals((await disk.flush()).status, OK); // nothing was at stake
    assertEquals((await disk.write(0, new Uint8Array(512))).status, OK);
    server.drop();
    assertEquals((await disk.flush()).status, IOERR);
    assertEquals((await disk.flush()).status, IOERR);
    await vhostd.until("flushes fail from now on; shut the guest down and start vhostd again");
    assertEquals((await disk.read(0, 512)).status, OK);
  }));

Deno.test("a connection of several that is lost costs nothing: the server flushes by another one", () =>
  withScript("reconnect=20,connections=2", async (server, disk) => {
    const honest = server.answer;
    assertEquals(server.count, 2);
    for (let i = 0; i < 4; i++) {
      assertEquals((await disk.write(i, new Uint8Array(512))).status, OK);
    }
    let flushes = 0;
    server.answer = (request) => {
      if (request.type === NBD_READ && flushes === 0) return "end";
      if (request.type === NBD_FLUSH) flushes++;
      return honest(request);
    };
    assertEquals((await disk.read(0, 512)).status, OK);
    assertEquals(flushes, 1);
    assertEquals((await disk.flush()).status, OK);
  }, (server) => server.multiConn = true));

Deno.test("an NBD server that ends connections one after the other is one loss, until new ones end too", () =>
  withScript("reconnect=20,connections=4", async (server, disk) => {
    const honest = server.answer;
    assertEquals(server.count, 4);
    server.answer = (request) => request.connection <= 4 ? "end" : honest(request);
    assertEquals((await disk.read(0, 512)).status, OK);
    server.answer = () => "end";
    assertEquals((await disk.read(0, 512)).status, IOERR);
    server.answer = honest;
    assertEquals((await disk.read(0, 512)).status, OK);
  }, (server) => server.multiConn = true));

Deno.test("an NBD disk that comes back smaller is not used, one that comes back larger is", () =>
  withScript("reconnect=1", async (server, disk, vhostd) => {
    const { bytes } = server;
    server.bytes = bytes / 2;
    server.drop();
    await vhostd.until(`Expected at least ${bytes} bytes, the server's disk has ${bytes / 2} now`);
    assertEquals((await disk.read(0, 512)).status, IOERR);
    server.bytes = 2 * bytes;
    // Requests fail at once until the server is there
    while ((await disk.read(2 * bytes / 512 - 1, 512)).status !== OK);
  }));

Deno.test("an NBD disk by TLS: the right key opens it, and a wrong one is a line", async () => {
  await using place = await NbdPlace.make();
  const keys = async (name: string, key: string) => {
    await Deno.writeTextFile(`${place.directory}/${name}`, `alice:${key}\n`, { mode: 0o600 });
    return `${place.directory}/${name}`;
  };
  const right = await keys("right", "00112233445566778899aabbccddeeff");
  const wrong = await keys("wrong", "ffffffffffffffffffffffffffffffff");
  await using _server = await NbdServer.nbdkit({
    ...{ at: place.nbd, args: ["--tls=require", `--tls-psk=${right}`, "8M"] },
  });
  const uri = (file: string) =>
    `nbds+unix://alice@/?socket=${place.nbd}&tls-psk-file=${encodeURIComponent(file)}`;
  await expectRefused(place, [
    [uri(wrong), "gnutls"],
    [uri(`${place.directory}/none`), "none"],
    [place.uri, "TLS"],
  ]);
  await using _vhostd = await place.serve([], uri(right));
  await using driver = await place.driver();
  const disk = new BlkDriver(driver);
  const data = numbers(65_536, 9);
  for (let i = 0; i < 20; i++) {
    assertEquals((await disk.write(128 * i, data)).status, OK);
    const read = await disk.read(128 * i, data.length);
    assertEquals([read.status, read.data], [OK, data]);
  }
});

Deno.test("an NBD disk by TLS with certificates: the server is verified, or a line says why not", async () => {
  await using place = await NbdPlace.make();
  const port = freePort();
  const directory = async (name: string, names: string) => {
    const path = `${place.directory}/${name}`;
    Deno.mkdirSync(path);
    const { ca, cert, key } = await makeCertificates(path, names);
    for (const [from, to] of [[ca, "ca-cert"], [cert, "server-cert"], [key, "server-key"]]) {
      Deno.renameSync(from, `${path}/${to}.pem`);
    }
    return path;
  };
  const right = await directory("right", "DNS:localhost");
  const wrong = await directory("wrong", "DNS:localhost");
  await using _server = await NbdServer.nbdkit({
    ...{ at: port, args: ["--tls=require", `--tls-certificates=${right}`, "8M"] },
  });
  const uri = (host: string, path: string) => `nbds://${host}:${port}/?tls-certificates=${path}`;
  await expectRefused(place, [
    [uri("localhost", wrong), `not one for localhost by an authority in ${wrong}/ca-cert.pem`],
    [uri("127.0.0.1", right), `not one for 127.0.0.1 by an authority in ${right}/ca-cert.pem`],
    [uri("localhost", "/none"), "No such file or directory (ENOENT): /none/ca-cert.pem"],
  ]);
  await using _vhostd = await place.serve([], uri("localhost", right));
  await using driver = await place.driver();
  const disk = new BlkDriver(driver), data = numbers(65_536, 9);
  assertEquals((await disk.write(0, data)).status, OK);
  const read = await disk.read(0, data.length);
  assertEquals([read.status, read.data], [OK, data]);
});
