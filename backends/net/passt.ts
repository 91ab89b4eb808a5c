/**
 * passt: a network without privileges. It translates between frames on a stream socket and sockets
 * of the host, so the guest reaches what the user reaches. Source: passt(1).
 *
 * @module
 */

import { OptionError } from "../../mod.ts";
import { type Fd, setCloseOnExec, setNonblocking, UnixConnection } from "../../src/linux/mod.ts";
import type { Network } from "./port.ts";
import { StreamNetwork } from "./stream_network.ts";

/** The MTU that passt assigns without `--mtu`: the largest frame of its protocol. */
const DEFAULT_MTU = 65_520;

/** How long passt may take to start, in milliseconds. */
const START_MS = 10_000;

/** The most forwarded ports. */
const MAX_FORWARDS = 64;

/** What the user gave. */
export interface UserOptions {
  readonly forward?: string;
  readonly mtu?: number;
}

/**
 * Starts passt, and starts it again whenever it has ended.
 *
 * @param log Takes messages for the person who runs the device.
 * @throws {OptionError} When it cannot be started.
 */
export async function openUserNetwork(
  { forward, mtu = DEFAULT_MTU }: UserOptions,
  log: (message: string) => void,
): Promise<Network> {
  const args = ["--quiet", "--mtu", `${mtu}`, ...forwardArguments(forward)];
  let first: Fd | undefined = await startPasst(args, new AbortController().signal);
  return new StreamNetwork({
    ...{ name: "passt", mtu },
    next: async (signal) => {
      const connection = first ?? await startPasst(args, signal);
      first = undefined;
      return connection;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(first?.close()),
  }, log);
}

/**
 * The arguments of passt for `--forward=[tcp:|udp:][ADDRESS:]PORT[:GUESTPORT],…`. Without an address
 * the port is open to programs of this host only.
 *
 * @throws {OptionError} When the text is anything else.
 */
export function forwardArguments(forward: string | undefined): string[] {
  const words = forward?.split(",") ?? [];
  if (words.length > MAX_FORWARDS) {
    throw new OptionError(`--forward takes up to ${MAX_FORWARDS} ports, got ${words.length}`);
  }
  return words.flatMap((word) => {
    const [, protocol = "tcp", address = "127.0.0.1", port, guestPort = port] = word.match(
      /^(?:(tcp|udp):)?(?:(\d+\.\d+\.\d+\.\d+|\[[\da-fA-F:.]+\]):)?(\d+)(?::(\d+))?$/,
    ) ?? [];
    if (![port, guestPort].every((number) => Number(number) >= 1 && Number(number) <= 65_535)) {
      throw new OptionError(
        `--forward takes [tcp:|udp:][ADDRESS:]PORT[:GUESTPORT], such as 2222:22; got ${
          JSON.stringify(word)
        }`,
      );
    }
    const host = address.replace(/^\[(.*)\]$/, "$1");
    return [protocol === "tcp" ? "--tcp-ports" : "--udp-ports", `${host}/${port}:${guestPort}`];
  });
}

/**
 * Starts passt with one end of a pair of sockets. It goes to the background as soon as it works, and
 * ends when the other end is closed, also if that is because this process was killed.
 *
 * @returns The other end.
 */
async function startPasst(args: readonly string[], signal: AbortSignal): Promise<Fd> {
  using made = new DisposableStack();
  const [near, far] = UnixConnection.pair().map(({ fd }) => made.use(fd));
  setCloseOnExec(far.number, false);
  // passt completes a frame by a call that has to wait: without that, frames lose their ends.
  setNonblocking(far.number, false);
  const { success, stderr } = await run(
    [
      ...args,
      // Otherwise it changes to another user, with fewer rights than root.
      ...Deno.uid() === 0 ? ["--runas", "0"] : [],
      ...["--fd", `${far.number}`],
    ],
    AbortSignal.any([signal, AbortSignal.timeout(START_MS)]),
    () => far.close(),
  );
  if (!success) {
    const lines = new TextDecoder().decode(stderr).trim().split("\n")
      .filter((line) => !/^(Failed to send .* to syslog)?$/.test(line));
    throw new OptionError(
      `passt does not start: ${lines.slice(-3).join("; ") || "it gives no reason"}`,
    );
  }
  made.move();
  return near;
}

async function run(
  args: string[],
  signal: AbortSignal,
  hasStarted: () => void,
): Promise<Deno.CommandOutput> {
  const ended = Promise.withResolvers<never>();
  const end = () =>
    ended.reject(
      new OptionError(`passt does not start: Expected it within ${START_MS / 1000} s, got nothing`),
    );
  try {
    const child = new Deno.Command("passt", {
      ...{ args, signal },
      ...{ stdin: "null", stdout: "null", stderr: "piped" },
    }).spawn();
    hasStarted();
    signal.addEventListener("abort", end);
    // What it started may have its standard error for longer.
    return await Promise.race([child.output(), ended.promise]);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new OptionError(
      "--user needs passt, which is not on PATH: apt install passt (Debian, Ubuntu), " +
        "dnf install passt (Fedora)",
    );
  } finally {
    signal.removeEventListener("abort", end);
  }
}
