/** A namespace that passt can copy its network from, with passt on PATH. */
import { programPath } from "../../../tools/guest/programs.ts";
import { NetworkNamespace } from "../../../tools/lib/network_namespace.ts";

/** The first default route there is. */
export const GATEWAY = "10.9.0.254";

/** A network for passt. Programs of this process find a passt that runs in it. */
export class UserNetwork implements AsyncDisposable {
  readonly #directory = Deno.makeTempDirSync({ prefix: "vhostd-passt-" });
  readonly #path = Deno.env.get("PATH")!;

  private constructor(readonly namespace: NetworkNamespace) {}

  static async create(): Promise<UserNetwork> {
    await using made = new AsyncDisposableStack();
    const namespace = made.use(await NetworkNamespace.create());
    // An interface whose packets nobody takes
    await namespace.ip("tuntap", "add", "out0", "mode", "tap");
    await namespace.address("out0", 1);
    // passt has no IPv6 without a link-local address, which comes with a carrier only.
    await namespace.ip("-6", "addr", "add", "fe80::1/64", "dev", "out0", "nodad");
    await namespace.ip("route", "add", "default", "via", GATEWAY);
    await namespace.ip("-6", "route", "add", "default", "via", "fd09::fe", "dev", "out0");
    const network = new UserNetwork(namespace);
    made.defer(() => network.#remove());
    await network.enter(namespace);
    made.move();
    return network;
  }

  /** Makes passt start in a namespace. */
  async enter(namespace: NetworkNamespace): Promise<void> {
    const command = [...namespace.through, await programPath("passt")].join(" ");
    const script = `#!/bin/sh\nexec ${command} "$@"\n`;
    await Deno.writeTextFile(`${this.#directory}/passt`, script, { mode: 0o755 });
    Deno.env.set("PATH", `${this.#directory}:${this.#path}`);
  }

  /** The path of a file, which is removed with the network. */
  path(name: string): string {
    return `${this.#directory}/${name}`;
  }

  /** Takes passt away. */
  leaveOut(): void {
    Deno.env.set("PATH", "/nowhere");
  }

  /** The processes of passt in the namespace. */
  passtPids(): number[] {
    const ours = Deno.readLinkSync(this.namespace.path);
    return [...Deno.readDirSync("/proc")].filter(({ name }) => /^\d+$/.test(name)).filter(
      ({ name }) => {
        try {
          return Deno.readTextFileSync(`/proc/${name}/cmdline`).includes("--fd\0") &&
            Deno.readLinkSync(`/proc/${name}/ns/net`) === ours;
        } catch {
          return false; // It has ended.
        }
      },
    ).map(({ name }) => Number(name));
  }

  /** Waits until all have ended: they are nobody's children. */
  async passtEnded(): Promise<void> {
    while (this.passtPids().length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }

  #remove(): void {
    Deno.env.set("PATH", this.#path);
    Deno.removeSync(this.#directory, { recursive: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#remove();
    await this.namespace[Symbol.asyncDispose]();
  }
}
