/** Streams with QEMU's own `-netdev stream`, as its client and its server. */
import { programPath } from "../../tools/guest/programs.ts";
import { kill, spawn } from "../../tools/lib/process.ts";
import { freePort } from "./lib/free_port.ts";
import { frame, NetDriver, packet } from "./lib/net_driver.ts";

/** A card that always receives: one that does not makes the whole hub wait. */
class Card {
  readonly #frames = new Set<string>();
  #onFrame = () => {};

  constructor(readonly driver: NetDriver) {
    driver.post(100);
    // It ends with the driver.
    this.#receive().catch(() => {});
  }

  async #receive(): Promise<never> {
    for (;;) {
      this.#frames.add((await this.driver.receive()).frame.toHex());
      this.driver.post(1);
      this.#onFrame();
    }
  }

  /** Waits for a frame. */
  async gets(frame: Uint8Array): Promise<void> {
    const text = frame.toHex();
    while (!this.#frames.has(text)) await new Promise<void>((resolve) => this.#onFrame = resolve);
  }
}

/** QEMU without a machine: a hub that joins streams. */
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

for (const served of ["unix", "inet"] as const) {
  const [server, client] = served === "unix" ? ["path", "TCP"] : ["TCP", "path"];
  Deno.test(`net exchanges frames with QEMU's -netdev stream as a server (${server}) and a client (${client}), again after QEMU was killed`, async () => {
    await using made = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir();
    made.defer(() => Deno.remove(directory, { recursive: true }));
    const path = `${directory}/peer`, port = freePort();
    const places = [path, `127.0.0.1:${port}`];
    const addresses = [
      `addr.type=unix,addr.path=${path}`,
      `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`,
    ];
    if (served === "inet") [places, addresses].forEach((both) => both.reverse());
    const cards: Card[] = [];
    for (const options of [{ stream: places[0] }, { streamListen: places[1] }]) {
      const setup = { buffer: [12 + 9000], timeoutMs: 60_000 };
      cards.push(new Card(made.use(await NetDriver.create(options, setup))));
    }
    for (const round of [0, 1]) {
      const qemu = await hub([`server=on,${addresses[0]}`, `server=off,${addresses[1]}`]);
      await using _ended = {
        async [Symbol.asyncDispose]() {
          kill(qemu);
          await qemu.status;
        },
      };
      for (const [i, sender] of cards.entries()) {
        for (const [size, bytes] of [60, 1514, 9000].entries()) {
          const sent = frame(bytes, 100 * round + 10 * i + size);
          let isHere = false;
          const arrived = cards[1 - i].gets(sent).then(() => isHere = true);
          // At first, connections may still be made.
          do await sender.driver.send(packet(sent)); while (size === 0 && !isHere);
          await arrived;
        }
      }
    }
  });
}
