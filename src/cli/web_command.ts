/**
 * `vhostd web`: serves a page that shows devices while they run.
 *
 * @module
 */

import type { CommandShape } from "./command.ts";
import { say } from "./failure.ts";
import { type CommandLine, parseCommand, PATHS_HELP } from "./help.ts";
import { listenAddress, listenFailure } from "./listen_address.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";

const options = {
  listen: {
    type: "text",
    placeholder: "ADDRESS:PORT",
    default: "127.0.0.1:8420",
    about: "Listen there; port 0 is a free one",
  },
  control: {
    type: "flag",
    about: "Let the page send commands to devices: keys, readings, a new size",
  },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND: CommandLine = {
  usage: "web [--listen=ADDRESS:PORT] [--control] [PATH…]",
  about: `Serves a page that shows devices while they run, and prints its URL. Anyone \
who has the URL can see the page: the token in it is the key.

${PATHS_HELP}`,
  options,
  operand: "control sockets or directories",
  operands: "any",
};

/** Serves the page until SIGINT or SIGTERM. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operands } = parsed;
  const address = listenAddress(String(values.listen ?? options.listen.default));
  const paths = operands.length > 0 ? operands : ["."];
  for (const path of paths) await expectPath(path);
  const { isLoopback } = await import("../web/refusal.ts");
  const { WebServer } = await import("../web/web_server.ts");
  const stop = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => stop.resolve());
  }
  await using server = await WebServer.start({
    ...address,
    paths,
    control: values.control === true,
    log: say,
  }).catch((cause) => {
    throw listenFailure(String(values.listen ?? options.listen.default), cause);
  });
  if (!isLoopback(address.hostname)) {
    say(`Listens on ${address.hostname}, without encryption: others in the network can read along`);
  }
  console.log(server.url);
  await stop.promise;
  return 0;
}

/** @throws {UsageError} When a path is neither a socket nor a directory, nor free for one. */
async function expectPath(path: string): Promise<void> {
  const info = await Deno.stat(path).catch(() => undefined);
  if (info === undefined) say(`There is nothing at ${path} yet; it is shown when it comes`);
  else if (!info.isSocket && !info.isDirectory) {
    throw new UsageError(
      `Expected a control socket or a directory of control sockets at ${path}, got a file`,
    );
  }
}
