/**
 * `vhostd metrics`: the metrics of devices for Prometheus, which reads no Unix sockets.
 *
 * @module
 */

import { METRICS_TYPE, metricsText } from "../runtime/metrics.ts";
import type { CommandShape } from "./command.ts";
import { say } from "./failure.ts";
import { type CommandLine, parseCommand, PATHS_HELP } from "./help.ts";
import { listenAddress, listenFailure } from "./listen_address.ts";
import { LiveRecords } from "./live_records.ts";
import { print } from "./screen.ts";
import { helpOption } from "./shared_options.ts";

const options = {
  listen: {
    type: "text",
    placeholder: "ADDRESS:PORT",
    about:
      "Serve them there at /metrics until SIGINT, such as 127.0.0.1:9427; port 0 is a free one",
  },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND: CommandLine = {
  usage: "metrics [--listen=ADDRESS:PORT] [PATH…]",
  about: `Prints the metrics of devices in Prometheus' text format, or serves them over TCP.

${PATHS_HELP}`,
  options,
  operand: "control sockets or directories",
  operands: "any",
};

/** Prints or serves metrics. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operands } = parsed;
  const listen = values.listen as string | undefined;
  const address = listen === undefined ? undefined : listenAddress(listen);
  const records = await LiveRecords.open(operands.length > 0 ? operands : ["."]);
  if (address === undefined) {
    print(await metricsOf(records));
    return 0;
  }
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => stop.abort());
  }
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({ ...address, signal: stop.signal, onListen() {} }, async (request) => {
      const { pathname } = new URL(request.url);
      if (pathname !== "/metrics") return new Response("There is only /metrics\n", { status: 404 });
      if (request.method !== "GET" && request.method !== "HEAD") {
        return new Response("Expected GET\n", { status: 405 });
      }
      return new Response(await metricsOf(records), { headers: { "content-type": METRICS_TYPE } });
    });
  } catch (cause) {
    throw listenFailure(listen!, cause);
  }
  const { hostname, port } = server.addr;
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  say(`Serves metrics at http://${host}:${port}/metrics`);
  await server.finished;
  return 0;
}

async function metricsOf(records: LiveRecords): Promise<string> {
  const { records: read, silent } = await records.read();
  const up = [...new Set(read.map(({ socket }) => socket))].map((socket) => [socket, 1] as const);
  const down = silent.map((socket) => [socket, 0] as const);
  return metricsText(
    read.map(({ socket, record }) => ({ record, labels: { socket } })),
    [...up, ...down],
  );
}
