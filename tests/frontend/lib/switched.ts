/** A switch whose guests have drivers of ours. */
import device from "../../../backends/net/switch/mod.ts";
import { type DeviceServer, serveInstances } from "../../../mod.ts";
import { frame, NetDriver, type NetSetup, packet } from "./net_driver.ts";

/** Buffers stay with the device for as long as a test lasts. */
export const timeoutMs = 60_000;

/** A switch with a guest for each entry of `ports`. */
export class Switched implements AsyncDisposable {
  private constructor(readonly guests: NetDriver[], readonly made: AsyncDisposableStack) {}

  /** @param ports The setup of each guest, with what follows the path of its port. */
  static async create(
    ports: (NetSetup & { flags?: string })[],
    log: (line: string) => void = () => {},
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
        log,
      }] as const
    );
    const group = made.use(await serveInstances(device, Object.fromEntries(instances)));
    const guests: NetDriver[] = [];
    for (const [i, { flags: _flags, ...setup }] of ports.entries()) {
      const server: DeviceServer = group.servers.get(`${i}`)!;
      guests.push(made.use(await NetDriver.join(server, path(i), { timeoutMs, ...setup })));
    }
    return new Switched(guests, made.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.made.disposeAsync();
  }
}

/** The address of a guest. */
export function mac(guest: number): number[] {
  return [2, 0, 0, 0, 1, guest];
}

/** A packet of one guest to another, or to all. */
export function from(guest: number, to: number[], bytes = 60, seed = 0): Uint8Array<ArrayBuffer> {
  const content = frame(bytes, seed, to);
  content.set(mac(guest), 6);
  return packet(content);
}
