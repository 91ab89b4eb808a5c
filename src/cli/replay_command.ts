/**
 * `vhostd replay`: plays a recorded front-end against a device.
 *
 * @module
 */

import { readRecording, type RecordedConnection } from "../frontend/recording.ts";
import { Replay, type ReplayDifference } from "../frontend/replay.ts";
import { LinuxError, plainMessage } from "../linux/mod.ts";
import { shown, shownJson } from "../runtime/shown.ts";
import type { CommandShape } from "./command.ts";
import { EXIT_FAILURE } from "./failure.ts";
import { type CommandLine, parseCommand } from "./help.ts";
import { helpOption } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";

/** The largest file to read. */
const MAX_FILE_BYTES = 2 ** 28;

const options = {
  socketPath: { type: "text", placeholder: "PATH", about: "The vhost-user socket of the device" },
  instance: {
    type: "text",
    placeholder: "NAME",
    about: "Which device of the file, where it has several",
  },
  timeout: {
    type: "number",
    unit: "ms",
    placeholder: "MS",
    least: 1,
    most: 600_000,
    default: 5000,
    about: "Time for each answer",
  },
  json: { type: "flag", about: "As JSON" },
  ...helpOption,
} as const;

/** For completion. */
export const shape: CommandShape = { options, operand: "file" };

const COMMAND: CommandLine = {
  usage: "replay FILE --socket-path=PATH [--json]",
  about: `Plays the front-end of FILE, which --wire=FILE captured, against a device, and compares \
the answers. Guest memory, eventfds and sockets are new ones with the recorded addresses and \
sizes. Memory is empty: the device gets no requests, and where a ring stops is not compared.

Exits with 0 if all answers are as recorded, 1 at the first that differs, 2 if there is nothing \
to compare.`,
  options,
  operand: "a file that --wire captured",
};

/** Plays a recorded front-end. */
export async function run(args: readonly string[]): Promise<number> {
  const parsed = parseCommand(COMMAND, args);
  if (parsed === undefined) return 0;
  const { values, operand: path } = parsed;
  const { socketPath, timeout, instance } = values as {
    socketPath?: string;
    timeout?: number;
    instance?: string;
  };
  if (socketPath === undefined) {
    throw new UsageError(`Expected --socket-path, got none; vhostd ${COMMAND.usage}`);
  }
  const connections = chosen(await readFile(path), path, instance);
  const messages = connections.reduce((sum, { requests }) => sum + requests.length, 0);
  const difference = await playAll(connections, socketPath, timeout ?? options.timeout.default);
  if (values.json) {
    console.log(shownJson({ connections: connections.length, messages, difference }, 2));
  } else if (difference === null) {
    const counts = [counted(connections.length, "connection"), counted(messages, "message")];
    console.log(`${counts.join(", ")}: all answers are as recorded`);
  } else {
    console.log(differenceText(difference));
  }
  return difference === null ? 0 : EXIT_FAILURE;
}

async function readFile(path: string): Promise<RecordedConnection[]> {
  try {
    const { isFile, size } = await Deno.stat(path);
    if (!isFile) throw new RangeError("Expected a file");
    if (size > MAX_FILE_BYTES) {
      throw new RangeError(`Expected at most ${MAX_FILE_BYTES} bytes, got ${size}`);
    }
    return readRecording(await Deno.readFile(path));
  } catch (cause) {
    throw new UsageError(`Cannot replay ${path}: ${plainMessage(cause)}`, { cause });
  }
}

/** The connections of one device. */
function chosen(
  connections: RecordedConnection[],
  path: string,
  instance: string | undefined,
): RecordedConnection[] {
  const devices = new Set(connections.map(({ device }) => device));
  if (devices.size > 1 && instance === undefined) {
    throw new UsageError(
      `Expected --instance, as ${path} has several devices: ${[...devices].sort().join(", ")}`,
    );
  }
  const own = connections.filter(({ device }) => instance === undefined || device === instance);
  if (own.length > 0) return own;
  throw new UsageError(
    `Expected a connection${instance === undefined ? "" : ` of device ${instance}`} in ${path}, ` +
      "got none",
  );
}

/** A difference, and the connection that has it, from 1. */
type Found = ReplayDifference & { connection: number };

async function playAll(
  connections: readonly RecordedConnection[],
  socketPath: string,
  timeoutMs: number,
): Promise<Found | null> {
  await using replay = new Replay(socketPath, timeoutMs);
  for (const [i, connection] of connections.entries()) {
    try {
      const difference = await replay.play(connection);
      if (difference !== undefined) return { connection: i + 1, ...difference };
    } catch (cause) {
      if (!(cause instanceof LinuxError)) throw cause;
      throw new UsageError(`Cannot replay: ${cause.message}`, { cause });
    }
  }
  return null;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function differenceText({ connection, message, request, recorded, got }: Found): string {
  const place = message === null ? "its end" : `message ${message}, ${request}`;
  return shown(`connection ${connection}, ${place}`) +
    `\n  recorded  ${shown(recorded)}\n  got       ${shown(got)}`;
}
