/**
 * `vhostd <device>`: serves a device in the foreground.
 *
 * @module
 */

import { keepNewFiles, noteNewFiles, removeNewFiles } from "../linux/file/new_files.ts";
import { replaceFile } from "../linux/file/path.ts";
import { openEndpoint } from "../runtime/endpoint.ts";
import { type DeviceHost, type DeviceHostOptions, DeviceServer } from "../runtime/mod.ts";
import { WIRE_MAX_BYTES } from "../runtime/defaults.ts";
import type { Instance, ServerGroup } from "../runtime/server_group.ts";
import type { TraceOptions } from "../runtime/trace/options.ts";
import { shownJson } from "../runtime/shown.ts";
import type { WireCapture } from "../runtime/wire_capture.ts";
import {
  type AnyDevice,
  deviceOptions,
  expectEffect,
  nameFeatures,
  parseOption,
} from "../virtio/mod.ts";
import { parseArguments, type ParsedArguments } from "./arguments.ts";
import { type DeviceTable, loadDevice } from "./devices.ts";
import { endpointOf, type EndpointValues, instancesOf, type InstanceValue } from "./endpoint.ts";
import { EXIT_FAILURE, say, sayStack, tellFailure, wantsTrace } from "./failure.ts";
import { expectOwnFiles } from "./own_files.ts";
import { capabilities, qemuHint, shellWord } from "./qemu.ts";
import { optionsOf, sharedOptions, type SharedValues } from "./shared_options.ts";
import { traceOf } from "./trace_options.ts";
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
  const { values, repeated, positional } = parseArguments(
    args,
    optionsOf(device),
    `vhostd ${name} --help`,
    device.instances,
  );
  takeOperand(device, name, positional, values);
  expectEffect(sharedOptions, values);
  expectOwnFiles(values);
  const places: Place[] = device.instances === undefined
    ? [{ name: "", endpoint: endpointOf(values as EndpointValues, name) }]
    : instancesOf(repeated, values as EndpointValues, device.instances, name);
  return await new Service(device, places, values).run();
}

/** Takes the operand of a device's command, which stands for an option. */
function takeOperand(
  { operand, options = {} }: AnyDevice,
  name: string,
  positional: readonly string[],
  values: ParsedArguments["values"],
): void {
  if (positional.length === 0) return;
  const [text, further] = positional;
  if (operand === undefined) {
    throw new UsageError(
      `Expected only flags after ${name}, got ${text}; vhostd ${name} --help lists them`,
    );
  }
  const others = [values[operand], further].filter((value) => value !== undefined);
  if (others.length > 0) {
    throw new UsageError(
      `Expected one ${options[operand].placeholder}, got ${text} and ${
        others[0]
      }; remove one of them`,
    );
  }
  values[operand] = parseOption(operand, options[operand], text);
}

/** Never settles. */
const never = new Promise<never>(() => {});

/** Where the device, or an instance of it, is served. */
type Place = Pick<InstanceValue, "name" | "endpoint"> & Partial<InstanceValue>;

/** The device that this process serves, or the instances of it. */
class Service {
  readonly #device: AnyDevice;
  readonly #places: readonly Place[];
  readonly #options: DeviceHostOptions;
  readonly #controlPath: string | undefined;
  readonly #recordFile: string | undefined;
  /** Of each place. */
  readonly #traces: readonly (TraceOptions | undefined)[];
  readonly #wireFile: string | undefined;
  readonly #wireMax: number;
  #wire: WireCapture | undefined;
  readonly #stop = Promise.withResolvers<"stop">();
  /** Resolves when closing begins. */
  readonly #ending = Promise.withResolvers<void>();
  #isStopping = false;
  /** Whether the start has succeeded. */
  #hasStarted = false;

  constructor(
    device: AnyDevice,
    places: readonly Place[],
    values: ParsedArguments["values"],
  ) {
    const own = Object.entries(values).filter(([name]) => !(name in sharedOptions));
    const { threads, pollUs, controlPath, record, wire, wireMax } = values as Partial<SharedValues>;
    this.#device = device;
    this.#places = places;
    this.#options = { options: Object.fromEntries(own), threads, pollUs };
    this.#controlPath = controlPath;
    this.#recordFile = record;
    this.#traces = places.map(({ name }) => traceOf(values as Partial<SharedValues>, name));
    this.#wireFile = wire;
    this.#wireMax = wireMax ?? WIRE_MAX_BYTES;
  }

  async run(): Promise<number> {
    // From now on a signal closes everything before the process exits
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      Deno.addSignalListener(signal, () => this.#onStop());
    }
    noteNewFiles();
    try {
      return await this.#run();
    } finally {
      await this.#wire?.[Symbol.asyncDispose]();
      removeNewFiles();
    }
  }

  async #run(): Promise<number> {
    const instances = await this.#open();
    const [{ source, options }] = instances;
    const serving = this.#device.instances === undefined
      ? DeviceServer.start(source, this.#device, options)
      : (await import("../runtime/server_group.ts")).ServerGroup.start(this.#device, instances);
    if (await Promise.race([serving, this.#stop.promise]) === "stop") {
      // Opening may take long; only the sockets exist yet
      for (const { source } of instances) source.stop();
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

  /** Checks the device's options, then opens the sockets, and the capture of their messages. */
  async #open(): Promise<Instance[]> {
    const given = this.#places.map(({ value }) => ({
      ...this.#options.options,
      ...value !== undefined && { [this.#device.instances!]: value },
    }));
    deviceOptions(this.#device, given);
    using opened = new DisposableStack();
    const instances = this.#places.map(({ name, endpoint }, i): Instance => {
      const title = titleOf(this.#device, name);
      const log = (message: string, stack?: string) => {
        say(`${title}: ${message}`);
        if (stack !== undefined && wantsTrace()) sayStack(stack);
      };
      const source = opened.use(openEndpoint(endpoint, log));
      return { name, source, options: { ...this.#options, log, options: given[i] } };
    });
    this.#wire = await this.#openWire();
    opened.move();
    return instances.map((instance, i) => ({
      ...instance,
      options: { ...instance.options, wire: this.#wire?.taps[i] },
    }));
  }

  async #openWire(): Promise<WireCapture | undefined> {
    const path = this.#wireFile;
    if (path === undefined) return undefined;
    const { WireCapture } = await import("../runtime/wire_capture.ts");
    const names = this.#places.map(({ name }) => name || this.#device.name);
    try {
      return new WireCapture(path, this.#wireMax, names, say);
    } catch (cause) {
      throw new UsageError(`--wire=${path}: ${(cause as Error).message}`, { cause });
    }
  }

  #onStop(): void {
    // A second signal means: do not wait
    if (this.#isStopping) Deno.exit(EXIT_FAILURE);
    this.#isStopping = true;
    this.#stop.resolve("stop");
  }

  async #serve(server: Served): Promise<void> {
    await using _control = await this.#openControl(server);
    await this.#startTraces(server);
    // Fail now, rather than at the end, if the file cannot be written
    this.#writeRecord(server);
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
    for (const [i, host] of hostsOf(server).entries()) say(this.#greeting(this.#places[i], host));
    if (isBehindNpx()) say(directCommand());
    try {
      const ready = Promise.all(hostsOf(server).map(({ ready }) => ready))
        .then(() => this.#onStarted());
      await Promise.race([server.finished, this.#stop.promise, ready.then(() => never)]);
      this.#onStarted();
    } finally {
      this.#ending.resolve();
    }
  }

  #onStarted(): void {
    this.#hasStarted = true;
    keepNewFiles();
  }

  async #startTraces(server: Served): Promise<void> {
    for (const [i, { tracing }] of hostsOf(server).entries()) {
      const trace = this.#traces[i];
      try {
        if (trace !== undefined) await tracing.start(trace);
      } catch (cause) {
        throw new UsageError(`--trace: ${(cause as Error).message}`, { cause });
      }
    }
  }

  async #openControl(server: Served): Promise<AsyncDisposable | undefined> {
    if (this.#controlPath === undefined) return undefined;
    const { ControlSocket } = await import("../runtime/control_socket.ts");
    return new ControlSocket("host" in server ? server.host : server, this.#controlPath);
  }

  /** The message when the device can be reached. */
  #greeting({ name, endpoint }: Place, host: DeviceHost): string {
    const device = this.#device;
    const title = titleOf(device, name);
    if ("fd" in endpoint) return `${title} serves on file descriptor ${endpoint.fd}`;
    const [verb, path, isServer] = "socketPath" in endpoint
      ? ["listens on", endpoint.socketPath, false] as const
      : ["connects to", endpoint.connectPath, true] as const;
    const offered = nameFeatures(host.offered, device.features).map((feature) => feature.name);
    const id = name || device.name;
    const hint = qemuHint(device, path, host.queues.length, isServer, id, offered);
    return `${title} ${verb} ${path}; ${hint}`;
  }

  async #reload(server: Served): Promise<void> {
    for (const { control } of hostsOf(server)) {
      if (control.onReload === undefined) {
        return say(`${this.#device.name} has nothing to reload on SIGHUP`);
      }
      try {
        await control.onReload();
      } catch (error) {
        tellFailure(error);
      }
    }
  }

  #writeRecord(server: Served): void {
    if (this.#recordFile === undefined) return;
    try {
      replaceFile(this.#recordFile, `${shownJson(server.record(), 2)}\n`);
    } catch (cause) {
      const reason = (cause as Error).message;
      throw new Error(`Cannot write the record to ${this.#recordFile}: ${reason}`, { cause });
    }
  }

  async #close(server: Served): Promise<void> {
    await server.close();
    if (this.#hasStarted) this.#writeRecord(server);
  }

  /** Reports what hangs, and writes the record as it is. */
  async #tooLong(server: Served): Promise<number> {
    await new Promise((resolve) => setTimeout(resolve, CLOSING_MS));
    const hanging = hostsOf(server).flatMap(({ record }) => record.toJSON().queues)
      .filter(({ inFlight }) => inFlight > 0)
      .map(({ index, name, inFlight }) => `queue ${index} (${name}) has ${inFlight} in flight`);
    say(
      `Expected everything to end within ${CLOSING_MS / 1000} s; ended without${
        hanging.length > 0 ? `: ${hanging.join(", ")}` : ""
      }`,
    );
    try {
      if (this.#hasStarted) this.#writeRecord(server);
    } catch (error) {
      tellFailure(error);
    }
    return EXIT_FAILURE;
  }
}

/** One server, or those of the instances. */
type Served = DeviceServer | ServerGroup;

function hostsOf(served: Served): DeviceHost[] {
  return "host" in served ? [served.host] : [...served.servers.values()].map(({ host }) => host);
}

/** The name of a device, or of an instance of it, in messages. */
function titleOf({ name }: AnyDevice, instance: string): string {
  return instance === "" ? name : `${name}/${instance}`;
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
  server: Served,
  printing: ReturnType<typeof loadPrinting>,
): Promise<void> {
  const { recordText, isColoured } = await printing;
  const records = await Promise.all(hostsOf(server).map((host) => host.freshRecord()));
  const options = { coloured: isColoured(Deno.stderr) };
  const text = records.map((record) => recordText(record, options)).join("\n");
  try {
    await Deno.stderr.write(new TextEncoder().encode(text));
  } catch {
    // stderr is closed.
  }
}
