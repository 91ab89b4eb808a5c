/** Streams with QEMU's own `-netdev stream`, as its client and its server. */
import { programPath } from "../../tools/guest/programs.ts";
import { kill, spawn } from "../../tools/lib/process.ts";
import { frame, NetDriver, packet } from "./lib/net_driver.ts";

/** TCP ports that nobody uses. */
function freePorts(): number[] {
  const listeners = [0, 0].map((port) => Deno.listen({ hostname: "127.0.0.1", port }));
  return listeners.map((listener) => {
    listener.close();
    return (listener.addr as Deno.NetAddr).port;
  });
}

/** QEMU without a machine: a hub that passes what comes by a stream to all others. */
async function hub(streams: readonly string[]): Promise<Deno.ChildProcess> {
  const args = streams.flatMap((stream, i) => [
    ...["-netdev", `stream,id=s${i},${stream}`],
    ...["-netdev", `hubport,id=h${i},hubid=0,netdev=s${i}`],
  ]);
  return spawn(
    await programPath("qemu-system-x86_64"),
    ["-machine", "none", "-nodefaults", "-display", "none", ...args],
    { stdin: "null", stdout: "null", stderr: "inherit" },
  );
}

Deno.test("net exchanges frames with QEMU's -netdev stream in each role, also after QEMU was killed", async () => {
  await using made = new AsyncDisposableStack();
  const directory = await Deno.makeTempDir();
  made.defer(() => Deno.remove(directory, { recursive: true }));
  const [one, two] = freePorts();
  const [near, far] = ["near", "far"].map((name) => `${directory}/${name}`);
  const cards: NetDriver[] = [];
  for (
    const options of [
      { stream: near },
      { stream: `127.0.0.1:${one}` },
      { streamListen: far },
      { streamListen: `127.0.0.1:${two}` },
    ]
  ) cards.push(made.use(await NetDriver.create(options, { queues: [256, 256] })));
  for (const round of [0, 1]) {
    const qemu = await hub([
      `server=on,addr.type=unix,addr.path=${near}`,
      `server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=${one}`,
      `server=off,addr.type=unix,addr.path=${far}`,
      `server=off,addr.type=inet,addr.host=127.0.0.1,addr.port=${two}`,
    ]);
    await using _ended = {
      async [Symbol.asyncDispose]() {
        kill(qemu);
        await qemu.status;
      },
    };
    for (const [i, sender] of cards.entries()) {
      for (const [size, bytes] of [60, 1514, 9000].entries()) {
        const sent = frame(bytes, 100 * round + 10 * i + size);
        for (const [j, receiver] of cards.entries()) {
          if (i !== j) await arrives(sender, receiver, sent);
        }
      }
    }
  }
});

/** Sends a frame again and again until it has come: both connections may still be made. */
async function arrives(sender: NetDriver, receiver: NetDriver, sent: Uint8Array): Promise<void> {
  receiver.post(100);
  let isHere = false;
  const received = (async () => {
    for (;;) {
      const { frame } = await receiver.receive();
      if (frame.length === sent.length && frame.every((byte, i) => byte === sent[i])) break;
    }
    isHere = true;
  })();
  while (!isHere) await sender.send(packet(sent));
  await received;
}
