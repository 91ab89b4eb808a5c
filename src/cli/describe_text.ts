/**
 * Describes a device's definition, as text and as JSON.
 *
 * @module
 */

import { OFFERED_BY_TRANSPORT } from "../runtime/device_host.ts";
import { shownDeep } from "../runtime/shown.ts";
import {
  type AnyDevice,
  type ConfigField,
  type ConfigLayout,
  DEFAULT_QUEUE_SIZE,
  type FeatureDefinition,
  nameFeatures,
  type OptionDefinition,
  type Queues,
  transportFeatures,
} from "../virtio/mod.ts";
import type { OptionTable } from "./arguments.ts";
import { flagText, optionLines } from "./help.ts";
import { type Ink, makeInk } from "./ink.ts";
import { type PermissionNeed, permissionsOf } from "./permissions.ts";
import { capabilities } from "./qemu.ts";
import { layOutQueues } from "../virtio/queue_layout.ts";
import { type Cell, table } from "./table.ts";

/** A device's definition as JSON. */
export interface DeviceDescription {
  name: string;
  /** The device type's number. */
  id: number;
  about: string;
  /** The place where its queues run. */
  plane: "thread" | "main";
  /** How they are spread: over several threads, on one, or none. */
  threads: "each" | "one" | "main";
  /** The output of `--print-capabilities`. */
  capabilities: { type: string; features?: string[] };
  queues: {
    /** The index of the first queue of the kind; null when it follows a family. */
    index: number | null;
    name: string;
    about: string;
    /** The most descriptors. */
    size: number;
    sender: "driver" | "device";
    /** Whether there may be several. */
    many: boolean;
    /** The family whose queues come in turn. */
    family: string | null;
  }[];
  /** The device type's own bits, then those that every device offers. */
  features: { bit: number; name: string; owner: "device" | "transport"; about: string }[];
  config: {
    layout: "packed" | "self-describing";
    bytes: number;
    fields: readonly ConfigField[];
  } | null;
  options: ({ flag: string } & OptionDefinition)[];
  /** The permissions of Deno that serving it needs. */
  permissions: PermissionNeed[];
}

/** Describes a device from its definition. */
export function describeDevice(device: AnyDevice): DeviceDescription {
  const layout = device.config as ConfigLayout | undefined;
  return {
    name: device.name,
    id: device.deviceId,
    about: device.about,
    plane: device.threads === "main" ? "main" : "thread",
    threads: device.threads ?? "each",
    capabilities: capabilities(device),
    queues: describeQueues(device.queues),
    features: describeFeatures(device.features ?? {}),
    config: layout === undefined || layout.size === 0
      ? null
      : { layout: layout.kind, bytes: layout.size, fields: layout.fields },
    options: Object.entries((device.options ?? {}) as OptionTable)
      .map(([name, option]) => ({ flag: flagText(name, option), ...option })),
    permissions: permissionsOf(device),
  };
}

function describeQueues(queues: Queues): DeviceDescription["queues"] {
  return layOutQueues(queues).map(({ index, name }, _, slots) => {
    const { about, size = DEFAULT_QUEUE_SIZE, sender = "driver", family = null } = queues[name];
    const isKnown = slots.slice(0, index).every((earlier) =>
      [undefined, family].includes(queues[earlier.name].family)
    );
    const many = family !== null;
    return { index: isKnown ? index : null, name, about, size, sender, many, family };
  });
}

function describeFeatures(
  features: Readonly<Record<string, FeatureDefinition>>,
): DeviceDescription["features"] {
  const own = Object.entries(features).map(([name, { bit, about }]) => ({
    bit,
    name,
    owner: "device" as const,
    about,
  })).sort((a, b) => a.bit - b.bit);
  const about = new Map<string, string>(
    Object.entries(transportFeatures).map(([name, { about }]) => [name, about]),
  );
  const transport = nameFeatures(OFFERED_BY_TRANSPORT).map(({ bit, name }) => ({
    bit,
    name,
    owner: "transport" as const,
    about: about.get(name) ?? "",
  }));
  return [...own, ...transport];
}

/** Describes a device as text. */
export function describeText(device: AnyDevice, coloured = false): string {
  const description = shownDeep(describeDevice(device));
  const ink = makeInk(coloured);
  const { name, about, id, threads, options } = description;
  const where = { each: "threads", one: "one thread", main: "the main thread" }[threads];
  const parts = [
    [`${ink("bold", name)}  ${about} (virtio device ${id}; queues run on ${where})`],
    queueLines(description, ink),
    featureLines(description, ink),
    configLines(description, ink),
  ];
  if (options.length > 0) {
    parts.push([ink("bold", "Options"), optionLines(device.options).trimEnd()]);
  }
  parts.push(permissionLines(description, ink));
  return parts.map((lines) => lines.join("\n") + "\n").join("\n");
}

const RIGHT = "right" as const;

function queueLines({ queues }: DeviceDescription, ink: Ink): string[] {
  const columns = [
    { title: "#", align: RIGHT },
    { title: "queue" },
    { title: "size", align: RIGHT },
    { title: "sender" },
    { title: "meaning" },
  ];
  const rows = queues.map(({ index, name, size, sender, many, about }): Cell[] => [
    (index === null ? "…" : String(index)) + (many ? "…" : ""),
    name,
    String(size),
    sender,
    about,
  ]);
  return [ink("bold", "Queues"), ...table(columns, rows, { ink })];
}

function featureLines({ features }: DeviceDescription, ink: Ink): string[] {
  const columns = [
    { title: "bit", align: RIGHT },
    { title: "feature" },
    { title: "owner" },
    { title: "meaning" },
  ];
  const rows = features.map(({ bit, name, owner, about }): Cell[] => [
    String(bit),
    name,
    [owner, owner === "device" ? "cyan" : "dim"],
    about,
  ]);
  const title = ink("bold", "Feature bits");
  const note = ink("dim", "options decide which of the device's own are offered");
  const hasOwn = features.some(({ owner }) => owner === "device");
  return [hasOwn ? `${title}  ${note}` : title, ...table(columns, rows, { ink })];
}

function configLines({ config }: DeviceDescription, ink: Ink): string[] {
  const title = ink("bold", "Config space");
  if (config === null) return [`${title}  ${ink("dim", "none")}`];
  const columns = [
    { title: "type no.", align: RIGHT },
    { title: "offset", align: RIGHT },
    { title: "size", align: RIGHT },
    { title: "type" },
    { title: "access" },
    { title: "field" },
    { title: "feature" },
    { title: "meaning" },
  ];
  const rows = config.fields.map((field): Cell[] => {
    const { mark, offset, size, type, access, name, feature = "", about, group, bits } = field;
    const names = bits === undefined
      ? ""
      : `: ${Object.entries(bits).map(([name, bit]) => `${name}(${bit})`).join(" ")}`;
    return [
      mark === undefined ? "" : String(mark.type),
      String(offset),
      String(size),
      type,
      [access, access === "rw" ? "yellow" : "dim"],
      name,
      [feature, "cyan"],
      (group === undefined ? about : `${group}: ${about}`) + names,
    ];
  });
  const note = ink("dim", `${config.layout}, ${config.bytes} bytes`);
  return [`${title}  ${note}`, ...table(columns, rows, { ink })];
}

function permissionLines({ permissions }: DeviceDescription, ink: Ink): string[] {
  const rows = permissions.map((need): Cell[] => [need.for, need.flags.join(" ")]);
  const note = ink("dim", "of deno run; --allow-ffi is all of libc, so these hold mistakes only");
  return [
    `${ink("bold", "Permissions")}  ${note}`,
    ...table([{ title: "for" }, { title: "flags" }], rows, { ink }),
  ];
}
