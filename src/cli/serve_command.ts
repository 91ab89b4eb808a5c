/**
 * `vhostd <device>`: serves a device in the foreground.
 *
 * @module
 */

import { replaceFile } from "../linux/file/path.ts";
import { openEndpoint } from "../runtime/endpoint.ts";
import { type DeviceHostOptions, DeviceServer, type Endpoint } from "../runtime/mod.ts";
import { shownJson } from "../runtime/shown.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import { parseArguments, type ParsedArguments } from "./arguments.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import { endpointOf, type EndpointValues } from "./endpoint.ts";
import { EXIT_FAILURE, say, sayStack, tellFailure, wantsTrace } from "./failure.ts";
import { capabilities, qemuHint, shellWord } from "./qemu.ts";
import { optionsOf, sharedOptions, type SharedValues } from "./shared_options.ts";
import { UsageError } from "./usage_error.ts";
import { isBehindNpx } from "./variables.ts";

/** Time to close everything before the process exits anyway. */
const CLOSING_MS = 5000;

/**
 * Serves a device until a signal, or the end of an inherited connection.
 *
 * @param name The device's name, or the path of its module.
 * @param devices The devices with a name.
 * @param otherCommands Other names to suggest for an unknown one.
 * @returns The exit status.
 */
export async function serveCommand(
  name: string,
  args: readonly string[],
  devices: DeviceTable,
  otherCommands: readonly string[] = [],
): Promise<number> {
  const device = await loadDevice(devices, name, otherCommands);
  // Management programs ask an unknown back-end for this, whatever other options it has
  if (args.includes("--print-capabilities")) {
    console.log(shownJson(capabilities(device)));
    return 0;
  }
  if (args.includes("--help") || args.includes("-h")) {
    const { deviceHelp } = await import("./help.ts");
    console.log(deviceHelp(device, name).trimEnd());
    return 0;
  }
  const { values, positional } = parseArguments(
    args,
    optionsOf(device),
    `vhostd ${name} --help`,
  );
  if (positional.length > 0) {
    throw new UsageError(
      `Expected only flags after ${name}, got ${positional[0]}; vhostd ${name} --help lists them`,
    );
  }
  const endpoint = endpointOf(values as EndpointValues, name);
  return await new Service(device, endpoint, values).run();
}

/** Never settles. */
const never = new Promise<never>(() => {});

/** The device that this process serves. */
class Service {
  readonly #device: AnyDevice;
  readonly #endpoint: Endpoint;
  readonly #options: DeviceHostOptions & Required<Pick<DeviceHostOptions, "log">>;
  readonly #controlPath: string | undefined;
  readonly #recordFile: string | undefined;
  readonly #stop = Promise.withResolvers<"stop">();
  /** Resolves when closing begins. */
  readonly #ending = Promise.withResolvers<void>();
  #isStopping = false;
  #canWriteRecord = false;

  constructor(device: AnyDevice, endpoint: Endpoint, values: ParsedArguments["values"]) {
    const own = Object.entries(values).filter(([name]) => !(name in sharedOptions));
    const { threads, pollUs, controlPath, record } = values as Partial<SharedValues>;
    this.#device = device;
    this.#endpoint = endpoint;
    this.#options = {
      options: Object.fromEntries(own),
      threads,
      pollUs,
      log: (message, stack) => {
        say(`${device.name}: ${message}`);
        if (stack !== undefined && wantsTrace()) sayStack(stack);
      },
    };
    this.#controlPath = controlPath;
    this.#recordFile = record;
  }

  async run(): Promise<number> {
    // From now on a signal closes everything before the process exits
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      Deno.addSignalListener(signal, () => this.#onStop());
    }
    const source = openEndpoint(this.#endpoint, this.#options.log);
    const serving = DeviceServer.start(source, this.#device, this.#options);
    if (await Promise.race([serving, this.#stop.promise]) === "stop") {
      // Opening may take long; only the socket exists yet
      source.stop();
      return 0;
    }
    const server = await serving;
    const ended = this.#serve(server).then(() => 0, tellFailure).then(async (status) => {
      this.#ending.resolve();
      await this.#close(server);
      return status;
    }).catch(tellFailure);
    return await Promise.race([ended, this.#ending.promise.then(() => this.#tooLong(server))]);
  }

  #onStop(): void {
    // A second signal means: do not wait
    if (this.#isStopping) Deno.exit(EXIT_FAILURE);
    this.#isStopping = true;
    this.#stop.resolve("stop");
  }

  async #serve(server: DeviceServer): Promise<void> {
    // Fail now, rather than at the end, if the file cannot be written
    this.#writeRecord(server);
    this.#canWriteRecord = true;
    await using _control = await this.#openControl(server);
    // A bug in a device must not end its guests
    globalThis.addEventListener("unhandledrejection", (event) => {
      event.preventDefault();
      tellFailure(event.reason);
    });
    globalThis.addEventListener("error", (event) => {
      event.preventDefault();
      tellFailure(event.error);
    });
    Deno.addSignalListener("SIGHUP", () => void this.#reload(server));
    // Loaded now, so that it is of the running version
    const printing = loadPrinting();
    Deno.addSignalListener("SIGUSR1", () => void printRecord(server, printing));
    say(this.#greeting(server));
    if (isBehindNpx()) say(directCommand());
    try {
      const { finished, host } = server;
      await Promise.race([finished, this.#stop.promise, host.ready.then(() => never)]);
    } finally {
      this.#ending.resolve();
    }
  }

  async #openControl(server: DeviceServer): Promise<AsyncDisposable | undefined> {
    if (this.#controlPath === undefined) return undefined;
    const { ControlSocket } = await import("../runtime/control_socket.ts");
    return new ControlSocket(server.host, this.#controlPath);
  }

  /** The message when the device can be reached. */
  #greeting(server: DeviceServer): string {
    const device = this.#device;
    const endpoint = this.#endpoint;
    if ("fd" in endpoint) return `${device.name} serves on file descriptor ${endpoint.fd}`;
    const [verb, path, isServer] = "socketPath" in endpoint
      ? ["listens on", endpoint.socketPath, false] as const
      : ["connects to", endpoint.connectPath, true] as const;
    const hint = qemuHint(device, path, server.host.queues.length, isServer);
    return `${device.name} ${verb} ${path}; ${hint}`;
  }

  async #reload(server: DeviceServer): Promise<void> {
    const { control } = server.host;
    if (control.onReload === undefined) {
      return say(`${this.#device.name} has nothing to reload on SIGHUP`);
    }
    try {
      await control.onReload();
    } catch (error) {
      tellFailure(error);
    }
  }

  #writeRecord(server: DeviceServer): void {
    if (this.#recordFile === undefined) return;
    try {
      replaceFile(this.#recordFile, `${shownJson(server.record(), 2)}\n`);
    } catch (cause) {
      const reason = (cause as Error).message;
      throw new Error(`Cannot write the record to ${this.#recordFile}: ${reason}`, { cause });
    }
  }

  async #close(server: DeviceServer): Promise<void> {
    await server.close();
    if (this.#canWriteRecord) this.#writeRecord(server);
  }

  /** Reports what hangs, and writes the record as it is. */
  async #tooLong(server: DeviceServer): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, CLOSING_MS));
    const hanging = server.record().queues.filter(({ inFlight }) => inFlight > 0)
      .map(({ index, name, inFlight }) => `queue ${index} (${name}) has ${inFlight} in flight`);
    say(
      `Expected everything to end within ${CLOSING_MS / 1000} s; ended without${
        hanging.length > 0 ? `: ${hanging.join(", ")}` : ""
      }`,
    );
    try {
      if (this.#canWriteRecord) this.#writeRecord(server);
    } catch (error) {
      tellFailure(error);
    }
    return EXIT_FAILURE;
  }
}

/** The command that starts this process without npx, which passes no signals on. */
function directCommand(): string {
  const program = new URL(Deno.mainModule).pathname;
  const words = [Deno.execPath(), "run", "--quiet", "--allow-all", program, ...Deno.args];
  return `npx passes no signals on: end this process by kill ${Deno.pid}. Without npx it is ` +
    words.map(shellWord).join(" ");
}

async function loadPrinting() {
  const [{ recordText }, { isColoured }] = await Promise.all([
    import("./record_text.ts"),
    import("./ink.ts"),
  ]);
  return { recordText, isColoured };
}

async function printRecord(
  server: DeviceServer,
  printing: ReturnType<typeof loadPrinting>,
): Promise<void> {
  const { recordText, isColoured } = await printing;
  const text = recordText(await server.freshRecord(), { coloured: isColoured(Deno.stderr) });
  try {
    await Deno.stderr.write(new TextEncoder().encode(text));
  } catch {
    // stderr is closed.
  }
}
