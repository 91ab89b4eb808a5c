/** Queues that share a thread's heap, and messages between the halves of a device. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type DeviceServer, serve, type ServeOptions } from "../../mod.ts";
import { VirtioDriver } from "../../src/frontend/mod.ts";
import { watchesEnded } from "../../src/linux/mod.ts";
import { ControlSocket } from "../../src/runtime/control_socket.ts";
import notebook from "./lib/notebook_device.ts";

const WRITE = [0, 2], READ = [1, 3];

/** A served notebook and its driver. */
interface Notebook {
  server: DeviceServer;
  driver: VirtioDriver;
  said: string[];
  write(pair: number, page: number, text: string): Promise<void>;
  read(pair: number, page: number): Promise<string>;
  /** Runs a command; returns the answers of the threads. */
  run(command: string, body?: unknown): Promise<unknown>;
}

async function withNotebook(
  options: Partial<ServeOptions>,
  test: (notebook: Notebook, directory: string) => Promise<void>,
  device: typeof notebook = notebook,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const said: string[] = [];
  {
    const socketPath = `${directory}/s`;
    const log = (line: string) => said.push(line);
    await using server = await serve(device, { socketPath, threads: 4, log, ...options });
    await using driver = await VirtioDriver.start(socketPath, { queues: 4 });
    const text = new TextDecoder();
    await test({
      ...{ server, driver, said },
      async write(pair, page, text) {
        const bytes = Uint8Array.of(page, ...new TextEncoder().encode(text));
        await driver.request(WRITE[pair], [bytes], []);
      },
      async read(pair, page) {
        const { data, written } = await driver.request(READ[pair], [Uint8Array.of(page)], [64]);
        return text.decode(data[0].subarray(0, written));
      },
      async run(command, body) {
        const answer = await server.host.control.commands![command].run(body);
        return (answer as { answers: unknown }).answers;
      },
    }, directory);
  }
  await watchesEnded();
  Deno.removeSync(directory, { recursive: true });
}

for (const plane of ["thread", "main"] as const) {
  Deno.test(`queues of a device that wants one thread share its heap (${plane})`, () =>
    withNotebook({ plane }, async ({ server, write, read }) => {
      await write(0, 7, "seven");
      assertEquals([await read(0, 7), await read(1, 7)], ["seven", "seven"]);
      await write(1, 8, "eight");
      assertEquals(await read(0, 8), "eight");
      const { queues, report } = await server.freshRecord();
      assertEquals(queues.map(({ name }) => name), ["writeq", "readq", "writeq", "readq"]);
      assertEquals(report, {
        written: [{ page: 7, index: 0, ordinal: 0 }, { page: 8, index: 2, ordinal: 1 }],
        threads: [{ pages: 2 }],
      });
      assertEquals(server.record().report, report);
    }));

  Deno.test(`an answer may be a promise, for which an idle thread runs its event loop (${plane})`, () =>
    withNotebook({ plane }, async ({ write, run }) => {
      const answer = run("await", 3);
      assertEquals(await run("pages"), [[]]);
      await write(1, 3, "three");
      assertEquals(await answer, ["page 3"]);
    }));

  Deno.test(`failing messages are answers and notices, and end nothing (${plane})`, () =>
    withNotebook({ plane }, async ({ server, said, write, read, run }) => {
      await assertRejects(() => run("erase", 9), RangeError, "page that is written, got 9");
      assert(said.some((line) => line.includes("A message to the data half failed")), said.join());
      if (plane === "thread") {
        await assertRejects(() => run("uncopied", "thrown"), Error, "Symbol(torn)");
        await assertRejects(() => run("uncopied", "now"), Error, "could not be cloned");
        await assertRejects(() => run("uncopied", "late"), Error, "could not be cloned");
      }
      assertEquals(await run("flood", 1000), [256]);
      assertEquals(await run("flood", 1), [0]);
      await server.host.control.commands!.drain.run(undefined);
      while ((await run("flood", 1) as number[])[0] === 0);
      assert(
        said.some((line) => line.includes("A message to the control half failed")),
        said.join(),
      );
      await write(0, 1, "one");
      assertEquals(await read(1, 1), "one");
      assertEquals(server.record().queues.filter(({ broken }) => broken), []);
    }));

  Deno.test(`at most 256 messages wait for an answer (${plane})`, () =>
    withNotebook({ plane }, async ({ write, run }) => {
      const waiting = Array.from({ length: 255 }, () => run("await", 5));
      // Messages keep their order, to which the queues' notifications do not belong.
      assertEquals(await run("pages"), [[]]);
      waiting.push(run("await", 5));
      await assertRejects(() => run("pages"), RangeError, "at most 256 messages");
      await write(0, 5, "five");
      await Promise.all(waiting);
      assertEquals(await run("pages"), [[5]]);
    }));
}

Deno.test("each thread has its own heap, answers and report", () =>
  withNotebook({ threads: 2 }, async ({ server, write, read, run }) => {
    await write(0, 1, "one");
    await write(0, 2, "two");
    await write(1, 3, "three");
    assertEquals([await read(0, 1), await read(1, 1)], ["one", ""]);
    assertEquals(await run("pages"), [[1, 2], [3]]);
    const { report } = await server.freshRecord();
    assertEquals(report.threads, [{ pages: 2 }, { pages: 1 }]);
    await server.close();
    assertEquals(server.record().report.threads, [{ pages: 2 }, { pages: 1 }]);
  }, { ...notebook, threads: "each" }));

Deno.test("commands of the control socket reach a running device", () =>
  withNotebook({}, async ({ server, write, read }, directory) => {
    const path = `${directory}/control`;
    await using _control = new ControlSocket(server.host, path);
    using client = Deno.createHttpClient({ proxy: { transport: "unix", path } });
    async function ask(method: string, name: string, body?: string) {
      const response = await fetch(`http://vhostd/${name}`, { client, method, body });
      return [response.status, await response.json()];
    }
    await write(0, 1, "one");
    await write(1, 2, "two");
    assertEquals(await ask("POST", "pages"), [200, { answers: [[1, 2]] }]);
    assertEquals((await ask("POST", "erase", "1"))[0], 200);
    assertEquals(await read(1, 1), "");
    const [status, { error }] = await ask("POST", "erase", "1");
    assertEquals(status, 400);
    assertStringIncludes(error, "got 1");
    const [, { report }] = await ask("GET", "record");
    assertEquals(report.threads, [{ pages: 1 }]);
  }));
