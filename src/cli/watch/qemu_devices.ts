/**
 * Finds a QEMU's vhost-user devices by QMP: their sockets, and where their registers are in the
 * guest's address spaces.
 *
 * @module
 */

import { list, members, text } from "../../runtime/shape.ts";
import type { Qmp } from "./qmp.ts";

/** The most devices that are looked at. */
const MAX_DEVICES = 256;

/** A vhost-user device of QEMU. */
export interface QemuDevice {
  /** The QOM path of what has its registers: the PCI device, or the virtio-mmio transport. */
  owner: string;
  /** The paths of its sockets, as QEMU has them; a network card with several queues has several. */
  sockets: string[];
}

/** The kinds of register regions: parts of a modern PCI device, a legacy one, and virtio-mmio. */
export type RegionKind = "common" | "device" | "legacy" | "mmio" | "other";

/** The registers of a device in an address space. */
export interface Region {
  /** QOM path. */
  owner: string;
  kind: RegionKind;
  /** The addresses of the first and the last byte. */
  first: number;
  last: number;
}

/** Finds the vhost-user devices. */
export async function findDevices(qmp: Qmp): Promise<QemuDevice[]> {
  const sockets = await chardevSockets(qmp);
  const network = await qmp.monitor("info network");
  const devices: QemuDevice[] = [];
  for (const container of ["/machine/peripheral", "/machine/peripheral-anon"]) {
    for (const { name, type } of (await propertiesOf(qmp, container)).slice(0, MAX_DEVICES)) {
      if (!type.startsWith("child<")) continue;
      const device = `${container}/${name}`;
      const properties = (await propertiesOf(qmp, device)).map(({ name }) => name);
      const backend = properties.includes("virtio-backend") ? `${device}/virtio-backend` : device;
      const labels = await chardevsOf(qmp, backend, network);
      const paths = labels.flatMap((label) => sockets.get(label) ?? []);
      if (paths.length === 0) continue;
      // PCI: DEVICE/virtio-bus; virtio-mmio: TRANSPORT/virtio-mmio-bus.N
      const bus = String(await get(qmp, backend, "parent_bus") ?? "");
      devices.push({ owner: bus.replace(/\/[^/]*$/, ""), sockets: paths });
    }
  }
  return devices;
}

/** A character device of QEMU. */
interface Chardev {
  label: string;
  filename: string;
}

/** A property of an object of QEMU. */
interface Property {
  name: string;
  type: string;
}

/** The path of each character device that is a Unix socket, by label. */
async function chardevSockets(qmp: Qmp): Promise<Map<string, string>> {
  const all = await qmp.execute("query-chardev");
  list(members<Chardev>({ label: text, filename: text }))(
    all,
    "what QEMU answers to query-chardev",
  );
  return new Map((all as Chardev[]).flatMap(({ label, filename }) => {
    const [, path] = /^(?:disconnected:)?unix:(.*?)(?:,server(?:=on)?)?$/.exec(filename) ?? [];
    return path === undefined ? [] : [[label, path] as const];
  }));
}

/** The labels of the character devices of a device. */
async function chardevsOf(qmp: Qmp, backend: string, network: string): Promise<string[]> {
  const own = await get(qmp, backend, "chardev");
  if (typeof own === "string" && own !== "") return [own];
  const crypto = await get(qmp, backend, "cryptodev");
  if (typeof crypto === "string" && crypto !== "") {
    const label = await get(qmp, crypto, "chardev");
    return typeof label === "string" ? [label] : [];
  }
  const netdev = await get(qmp, backend, "netdev");
  if (typeof netdev !== "string" || netdev === "") return [];
  // " \ net0: index=0,type=vhost-user,vhost-user0 to LABEL"
  return [...network.matchAll(/(\S+): index=\d+,type=vhost-user,vhost-user\d+ to (\S+)/g)]
    .flatMap(([, id, label]) => id === netdev ? [label] : []);
}

async function propertiesOf(qmp: Qmp, path: string): Promise<Property[]> {
  const answer = await qmp.execute("qom-list", { path }).catch(() => []);
  list(members<Property>({ name: text, type: text }))(answer, "what QEMU answers to qom-list");
  return answer as Property[];
}

async function get(qmp: Qmp, path: string, property: string): Promise<unknown> {
  return await qmp.execute("qom-get", { path, property }).catch(() => undefined);
}

const REGION =
  /^ *([0-9a-f]{16})-([0-9a-f]{16}) \(prio [^)]*\): (virtio-\S+).* owner:\{dev (id|path)=([^}\s]+)\}/gm;

/** The register regions of all virtio devices. */
export async function findRegions(qmp: Qmp): Promise<Region[]> {
  const regions = new Map<string, Region>();
  for (const match of (await qmp.monitor("info mtree -o")).matchAll(REGION)) {
    const [, first, last, name, how, who] = match;
    const owner = how === "id" ? `/machine/peripheral/${who}` : who;
    const region = {
      owner,
      kind: regionKind(name),
      first: parseInt(first, 16),
      last: parseInt(last, 16),
    };
    regions.set(`${region.kind} ${first} ${owner}`, region);
  }
  return [...regions.values()];
}

/** The kind of a region by its name, such as `virtio-pci-common-virtio-blk`. */
export function regionKind(name: string): RegionKind {
  const [, part] = /^virtio-pci-(common|device|isr|notify)\b/.exec(name) ?? [];
  if (part === "common" || part === "device") return part;
  if (name === "virtio-pci") return "legacy";
  return name === "virtio-mmio" ? "mmio" : "other";
}
