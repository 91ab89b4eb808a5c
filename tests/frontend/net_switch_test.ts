/** Guests on a switch, each with a driver of ours. */
import { assert, assertEquals } from "@std/assert";
import device from "../../backends/net/switch/mod.ts";
import { type DeviceServer, serveInstances } from "../../mod.ts";
import { frame, NetDriver, type NetSetup, packet } from "./lib/net_driver.ts";

/** A switch with a guest for each entry of `ports`. */
class Switched implements AsyncDisposable {
  private constructor(readonly guests: NetDriver[], readonly made: AsyncDisposableStack) {}

  /** @param ports The setup of each guest, with what follows the path of its port. */
  static async create(
    ports: (NetSetup & { flags?: string })[],
    options: Record<string, unknown> = {},
  ): Promise<Switched> {
    await using made = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir();
    made.defer(() => Deno.remove(directory, { recursive: true }));
    const path = (i: number) => `${directory}/${i}.sock`;
    const instances = ports.map(({ flags = "" }, i) =>
      [`${i}`, {
        socketPath: path(i),
        options: { ...options, port: path(i) + flags },
      }] as const
    );
    const group = made.use(await serveInstances(device, Object.fromEntries(instances)));
    const guests: NetDriver[] = [];
    for (const [i, { flags: _flags, ...setup }] of ports.entries()) {
      const server: DeviceServer = group.servers.get(`${i}`)!;
      guests.push(made.use(await NetDriver.join(server, path(i), setup)));
    }
    return new Switched(guests, made.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.made.disposeAsync();
  }
}

/** The address of a guest. */
function mac(guest: number): number[] {
  return [2, 0, 0, 0, 1, guest];
}

/** A packet of one guest to another, or to all. */
function from(guest: number, to: number[], bytes = 60, seed = 0): Uint8Array<ArrayBuffer> {
  const content = frame(bytes, seed, to);
  content.set(mac(guest), 6);
  return packet(content);
}

const ALL = Array(6).fill(0xff);

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";
  Deno.test(`switch floods what it does not know, and forwards what it knows (${name})`, async () => {
    await using switched = await Switched.create([{ packed }, { packed }, { packed }]);
    const [a, b, c] = switched.guests;
    for (const guest of switched.guests) guest.post(20);
    await a.send(from(0, ALL));
    for (const guest of [b, c]) {
      assertEquals((await guest.receive()).frame, from(0, ALL).subarray(12));
    }
    await b.send(from(1, mac(0), 1514));
    assertEquals((await a.receive()).frame, from(1, mac(0), 1514).subarray(12));
    await a.send(from(0, mac(1), 100));
    assertEquals((await b.receive()).frame, from(0, mac(1), 100).subarray(12));
    assertEquals(c.report.received.packets, 1);
    assert(a.report.received.packets === 1 && b.report.received.packets === 2);
  });
}
