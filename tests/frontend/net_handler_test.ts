import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import net from "../../backends/net/mod.ts";
import { OptionError, serve } from "../../mod.ts";
import { runCli } from "./lib/cli_process.ts";
import { frame, NetDriver, type NetSetup, packet } from "./lib/net_driver.ts";
import { Ask } from "./lib/scripted_network.ts";

const HANDLER = new URL("./lib/scripted_network.ts", import.meta.url).pathname;
/** It has no `open`, and so no event loop most of the time. */
const PLAIN = new URL("./lib/plain_network.ts", import.meta.url).pathname;

function create(setup: NetSetup = {}, options = {}, log?: (line: string) => void) {
  return NetDriver.create({ handler: HANDLER, ...options }, setup, log);
}

/** A frame that asks the network for something. */
function ask(what: number, bytes = 60, seed = 0, argument = 0): Uint8Array {
  const asking = frame(bytes, seed);
  asking.set([what, argument], 14);
  return asking;
}

for (
  const { name, ...rings } of [
    { name: "split", packed: false, inOrder: false },
    { name: "packed", packed: true, inOrder: false },
    { name: "packed, in order", packed: true, inOrder: true },
  ]
) {
  Deno.test(`a network answers frames that lie in one part or in several (${name})`, async () => {
    await using setUp = await create(
      { ...rings, buffer: [500] },
      rings.packed ? {} : { handler: PLAIN },
    );
    const layouts = [[12, 0], [0], [3, 9, 20, 0], [13, 0], [12, 1, 0]];
    for (const [i, layout] of layouts.entries()) {
      const echoed = ask(i % 2 === 0 ? Ask.ECHO : Ask.LATER, 60 + 300 * i, i);
      const bytes = packet(echoed);
      const rest = bytes.length - layout.reduce((sum, part) => sum + part, 0);
      setUp.post(4);
      await setUp.send(bytes, { parts: [...layout, rest].filter((part) => part > 0) });
      const answer = await setUp.receive();
      assertEquals(answer.frame, echoed);
      assertEquals([answer.flags, answer.gsoType, answer.csumStart], [0, 0, 0]);
    }
  });
}

for (const handler of [HANDLER, PLAIN]) {
  const name = handler.replace(/.*\//, "");
  Deno.test(`a network gives several frames at once, as the driver gives buffers (${name})`, async () => {
    await using setUp = await create({}, { handler });
    await setUp.send(packet(ask(Ask.COPIES, 100, 1, 200)));
    for (const buffers of [1, 150, 49]) {
      setUp.post(buffers);
      for (let i = 0; i < buffers; i++) {
        assertEquals((await setUp.receive()).frame, ask(Ask.COPIES, 100, 1, 200));
      }
    }
  });
}

Deno.test("a network's queue is bounded, and what does not fit is counted", async () => {
  await using setUp = await create({ queues: [1024, 256] });
  await setUp.send(packet(ask(Ask.FLOOD)));
  assertEquals(setUp.report.received.drops, { queue: 1 });
  setUp.post(256);
  for (let i = 0; i < 256; i++) await setUp.receive();
  // With buffers, none is lost, although they do not fit in the queue together.
  setUp.post(1000);
  await setUp.send(packet(ask(Ask.FLOOD)));
  for (let i = 0; i < 1000; i++) await setUp.receive();
  assertEquals(setUp.report.received.drops, { queue: 1 });
  assertEquals(setUp.report.received.packets, 1256);
});

Deno.test("a network whose timers and promises fail goes on, and so does the card", async () => {
  const failed = Promise.withResolvers<string>();
  await using setUp = await create({}, {}, failed.resolve);
  setUp.post(2);
  await setUp.send(packet(ask(Ask.STRAY)));
  // The first is told; a busy thread finds the timer first.
  assertMatch(await failed.promise, /The network failed: Error: No (promises|timers) today/);
  // Its echo comes after a timer, and so after the failed one.
  await setUp.send(packet(ask(Ask.LATER)));
  await setUp.receive();
  await setUp.send(packet(ask(Ask.NO_ERROR)));
  assertEquals(setUp.report.sent.drops, { handler: 1 });
});

Deno.test("a network that fails on a packet drops it, is told of once, and goes on", async () => {
  const lines: string[] = [];
  const failed = Promise.withResolvers<void>();
  await using setUp = await create({}, {}, (line) => {
    lines.push(line);
    if (line.includes("network failed")) failed.resolve();
  });
  for (const what of [Ask.THROW, Ask.REJECT, Ask.NO_FRAME, Ask.THROW]) {
    await setUp.send(packet(ask(what)));
  }
  await setUp.send(packet(ask(Ask.TINY)));
  setUp.post(2);
  await setUp.send(packet(ask(Ask.OVERSIZE)));
  assertEquals((await setUp.receive()).frame.length, 1518);
  const { sent, received } = setUp.report;
  assertEquals([sent.packets, sent.drops], [2, { handler: 4 }]);
  assertEquals([received.packets, received.drops], [1, { tiny: 1, oversize: 1 }]);
  await failed.promise;
  const told = lines.filter((line) => line.includes("network failed"));
  assertEquals(told.length, 1);
  assertStringIncludes(told[0], "No packets today");
});

Deno.test("a network has options, sends on its own, and adds to the record", async () => {
  await using setUp = await create({}, { handlerOptions: "greeting=hello,, guest" });
  setUp.post(1);
  const { frame } = await setUp.receive();
  assertEquals(new TextDecoder().decode(frame.subarray(14)), "hello, guest");
  await setUp.send(packet(ask(Ask.NOTHING)));
  assertEquals((await setUp.server.freshRecord()).report.threads, [{ count: 1 }]);
});

Deno.test("a network that answers later loses no answer to a stop or a new connection", async () => {
  await using setUp = await create({ queues: [256, 256] });
  setUp.post(60);
  const sent: Promise<void>[] = [];
  for (let i = 0; i < 60; i++) {
    sent.push(setUp.send(packet(ask(Ask.LATER, 100 + i))));
    if (i === 20) {
      await setUp.driver.stop();
      await setUp.driver.restart();
    }
    if (i === 40) {
      await setUp.driver.stop();
      await setUp.driver.reconnect();
    }
  }
  const lengths = [];
  for (let i = 0; i < 60; i++) lengths.push((await setUp.receive()).frame.length);
  await Promise.all(sent);
  assertEquals(lengths.sort(), Array.from({ length: 60 }, (_, i) => 100 + i));
  assertEquals((await setUp.server.freshRecord()).report.threads, [{ count: 60 }]);
});

Deno.test("a network answers behind a slow line, at once or later", async () => {
  await using setUp = await create({}, { delay: "2ms", rate: "10mbit" });
  setUp.post(100);
  for (const what of [Ask.ECHO, Ask.LATER]) {
    const frames = Array.from({ length: 50 }, (_, i) => ask(what, 60 + i, i));
    await Promise.all(frames.map((frame) => setUp.send(packet(frame))));
    for (const frame of frames) assertEquals((await setUp.receive()).frame, frame);
  }
});

Deno.test("a network that fails as it ends is told of", async () => {
  const lines: string[] = [];
  {
    const options = { handlerOptions: "fail-at-end" };
    await using setUp = await create({}, options, (line) => lines.push(line));
    await setUp.send(packet(ask(Ask.NOTHING)));
  }
  assertMatch(lines.join(), /^close\(\) of net .*failed: No end today$/);
});

Deno.test("a network that cannot begin drops all packets", async () => {
  const failed = Promise.withResolvers<string>();
  const options = { handlerOptions: "fail" };
  await using setUp = await create({}, options, failed.resolve);
  for (let i = 0; i < 3; i++) await setUp.send(packet(ask(Ask.ECHO)));
  assertEquals(setUp.report.sent.drops, { handler: 3 });
  assertStringIncludes(await failed.promise, "The network cannot begin: RangeError: Not today");
});

Deno.test("net says what is wrong with a network in one line", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/broken.ts`, "export default {;\n");
    await Deno.writeTextFile(`${folder}/empty.ts`, "export default {};\n");
    await Deno.writeTextFile(
      `${folder}/typo.ts`,
      'import { defineNetwork } from "@vhostd/vhostd/net";\n' +
        "export default defineNetwork({ packet() {}, opne() {} });\n",
    );
    const cases: [flags: string[], reason: string][] = [
      [[`--handler=${folder}/missing.ts`], "Cannot load the network"],
      [[`--handler=${folder}/broken.ts`], "Cannot load the network"],
      [
        [`--handler=${folder}/typo.ts`],
        "A network: expected options, open, packet, report, close, " +
        "got opne; did you mean open?",
      ],
      [[`--handler=${folder}/empty.ts`], "Expected a network as the default export"],
      [[`--handler=${HANDLER}`, "--queue-pairs=2"], "leave --queue-pairs out"],
      [[`--handler=${HANDLER}`, "--handler-options=x=1"], "no option x; it has greeting ("],
      [[`--handler=${HANDLER}`, "--handler-options=fail=1"], "--handler-options: fail takes no"],
      [["--null", "--handler-options=x=1"], "no effect without --handler"],
    ];
    for (const [flags, reason] of cases) {
      const socket = `${folder}/net.sock`;
      const { status, stderr } = await runCli(["net", `--socket-path=${socket}`, ...flags]);
      assert(status > 0, stderr);
      assertEquals(stderr.trim().split("\n").length, 1, stderr);
      assertStringIncludes(stderr, reason);
      await assertRejects(() => Deno.lstat(socket), Deno.errors.NotFound);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  await assertRejects(
    () => serve(net, { socketPath: "/nowhere", options: { handler: HANDLER, null: true } }),
    OptionError,
    "Expected one of --tap",
  );
});
