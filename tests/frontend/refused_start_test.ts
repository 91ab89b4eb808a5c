/** A start that is refused, however late, leaves nothing behind. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { CliProcess, runCli } from "./lib/cli_process.ts";
import { DiskServer } from "./lib/disk_server.ts";

const LATE_STORE = `
import { defineStore } from "@vhostd/vhostd/store";

export default defineStore({
  open: () => ({ bytes: 2 ** 20 }),
  attach() {
    throw new Error("not on a thread");
  },
  read() {},
});
`;

/** What is in the directory before a start. */
const FILES = { "base.img": "0".repeat(2 ** 20), "late.ts": LATE_STORE, "record.json": "{}" };

/** Makes a directory with the files, which is removed at the end of the block. */
function directory(): { path: string; names(): string[] } & Disposable {
  const path = Deno.makeTempDirSync();
  for (const [name, text] of Object.entries(FILES)) Deno.writeTextFileSync(`${path}/${name}`, text);
  return {
    path,
    names: () => [...Deno.readDirSync(path)].map(({ name }) => name).sort(),
    [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }),
  };
}

/** Flags that each make a file, in the directory `@`. */
const ALL = "--wire=@/wire.pcapng --trace=@/trace.json --record=@/new.json --control-path=@/c.sock";
const SOCKET = "--socket-path=@/s.sock";
const OVERLAY = `blk ${SOCKET} --overlay=@/delta.img --wire=@/wire.pcapng`;
const NET = `net --null ${SOCKET} --pcap=@/net.pcapng`;
const SWITCH = "switch --port=@/a.sock,pcap=@/a.pcapng";
const BAD_TRACE = "--trace=@/no/trace.json", NO_TRACE = "Cannot write the trace";

const cases: [what: string, command: string, line: string][] = [
  ["a flag", `${OVERLAY} @/base.img ${ALL} --block-size=513`, "--block-size takes a power of 2"],
  ["its faults", `${OVERLAY} @/base.img ${ALL} --faults=error=x`, "--faults"],
  ["a store on its thread", `${OVERLAY} @/late.ts ${ALL}`, "not on a thread"],
  ["the record", `${OVERLAY} @/base.img ${ALL} --record=@/no/record.json`, "Cannot write the rec"],
  ["the trace", `${OVERLAY} @/base.img ${ALL} ${BAD_TRACE}`, NO_TRACE],
  ["the control socket", `${OVERLAY} @/base.img ${ALL} --control-path=@/base.img`, "not a socket"],
  [
    "the trace, with an earlier record",
    `${OVERLAY} @/base.img --record=@/record.json ${BAD_TRACE}`,
    NO_TRACE,
  ],
  ["a wire that is its disk", `blk ${SOCKET} @/base.img --wire=@/base.img`, "that of --blk-file"],
  ["a record that is its trace", `rng ${SOCKET} --record=@/a --trace=@/a`, "that of --trace"],
  ["a record that is its disk", `blk ${SOCKET} @/base.img --record=@/./base.img`, "of --blk-file"],
  ["a record that is a capture", `${SWITCH} --record=@/a.pcapng`, "which is in use"],
  ["the trace of a network", `${NET} ${BAD_TRACE}`, NO_TRACE],
  ["an impairment", `${NET} --loss=most`, "--loss"],
  ["the socket of a second port", `${SWITCH} --port=@/no/b.sock`, "its directory does not exist"],
  ["the capture of a second port", `${SWITCH} --port=@/b.sock,pcap=@/no/b.pcapng`, "--pcap="],
  [
    "the trace of a disk elsewhere",
    `blk --socket-path=@/s.sock URL --store-options=cache=@ ${BAD_TRACE}`,
    NO_TRACE,
  ],
];

for (const [what, command, line] of cases) {
  Deno.test(`a start that is refused for ${what} leaves no file behind`, async () => {
    using made = directory();
    await using server = new DiskServer(2 ** 20);
    const words = command.split(" ").map((word) =>
      word.replaceAll("@", made.path).replace("URL", server.url)
    );
    // The last of a flag that is given twice is the one that is to be refused
    const args = words.filter((word, i) =>
      !word.startsWith("--") || word.startsWith("--port=") ||
      !words.slice(i + 1).some((later) => later.split("=")[0] === word.split("=")[0])
    );
    const { status, stderr } = await runCli(args);
    assertStringIncludes(stderr, line);
    assert(status !== 0);
    assertEquals(made.names(), Object.keys(FILES).sort());
    for (const [name, text] of Object.entries(FILES)) {
      assert(Deno.readTextFileSync(`${made.path}/${name}`) === text, `${name} is as it was`);
    }
  });
}

Deno.test("a start that succeeds keeps the files that it made", async () => {
  using made = directory();
  const words = `${OVERLAY} @/base.img ${ALL}`.split(" ");
  const args = new Set(words.map((word) => word.replaceAll("@", made.path)));
  await using cli = new CliProcess([...args]);
  await cli.until("listens on");
  assertEquals((await cli.stop()).status, 0);
  const files = ["delta.img", "new.json", "trace.json", "wire.pcapng", ...Object.keys(FILES)];
  assertEquals(made.names(), files.sort());
});
