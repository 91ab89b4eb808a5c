/**
 * The registers of virtio devices by their offsets: virtio 1.3, 4.1.4.3 (PCI), 4.1.4.10 (legacy
 * PCI), 4.2.2 and 4.2.4 (MMIO). Names are those of PCI where both have a register.
 *
 * @module
 */

/** The first offset of each register, with its name; lower ones belong to the one before. */
type Layout = readonly (readonly [offset: number, name: string])[];

const COMMON: Layout = [
  [0x00, "device_feature_select"],
  [0x04, "device_feature"],
  [0x08, "driver_feature_select"],
  [0x0c, "driver_feature"],
  [0x10, "config_msix_vector"],
  [0x12, "num_queues"],
  [0x14, "device_status"],
  [0x15, "config_generation"],
  [0x16, "queue_select"],
  [0x18, "queue_size"],
  [0x1a, "queue_msix_vector"],
  [0x1c, "queue_enable"],
  [0x1e, "queue_notify_off"],
  [0x20, "queue_desc"],
  [0x28, "queue_driver"],
  [0x30, "queue_device"],
  [0x38, "queue_notif_config_data"],
  [0x3a, "queue_reset"],
  [0x3c, "other"],
];

const MMIO: Layout = [
  [0x000, "magic_value"],
  [0x004, "version"],
  [0x008, "device_id"],
  [0x00c, "vendor_id"],
  [0x010, "device_feature"],
  [0x014, "device_feature_select"],
  [0x018, "other"],
  [0x020, "driver_feature"],
  [0x024, "driver_feature_select"],
  [0x028, "guest_page_size"],
  [0x02c, "other"],
  [0x030, "queue_select"],
  [0x034, "queue_size"], // the largest, read; the chosen one is written at the next
  [0x038, "queue_size"],
  [0x03c, "queue_align"],
  [0x040, "queue_pfn"],
  [0x044, "queue_enable"],
  [0x048, "other"],
  [0x050, ""], // QueueNotify
  [0x054, "other"],
  [0x060, ""], // InterruptStatus, InterruptACK
  [0x068, "other"],
  [0x070, "device_status"],
  [0x074, "other"],
  [0x080, "queue_desc"],
  [0x088, "other"],
  [0x090, "queue_driver"],
  [0x098, "other"],
  [0x0a0, "queue_device"],
  [0x0a8, "other"],
  [0x0ac, "shm"],
  [0x0c0, "queue_reset"],
  [0x0c4, "other"],
  [0x0fc, "config_generation"],
  [0x100, "config"],
];

const LEGACY: Layout = [
  [0x00, "device_feature"],
  [0x04, "driver_feature"],
  [0x08, "queue_pfn"],
  [0x0c, "queue_size"],
  [0x0e, "queue_select"],
  [0x10, ""], // notify
  [0x12, "device_status"],
  [0x13, ""], // ISR
  [0x14, "config"],
];

const LEGACY_MSIX: Layout = [
  ...LEGACY.slice(0, -1),
  [0x14, "config_msix_vector"],
  [0x16, "queue_msix_vector"],
  [0x18, "config"],
];

const DEVICE: Layout = [[0, "config"]];

/** An access as QEMU traces it: an offset in a region, a size in bytes, a value. */
export interface RawAccess {
  kind: "common" | "device" | "legacy" | "mmio";
  offset: number;
  bytes: number;
  isWrite: boolean;
  value: number;
}

/** The register of an access. */
export interface Place {
  register: string;
  /** The offset in the register or in config space. */
  offset: number;
  /** The selected word or queue. */
  index: number | null;
}

/** Tells the registers of one device, and follows what its driver selects. */
export class Registers {
  #deviceWord = 0;
  #driverWord = 0;
  #queue = 0;
  /** A legacy device has two registers more while MSI-X is on, which shows when they are written. */
  #hasMsix = false;

  /** The register of an access; undefined for notifications and interrupts. */
  place({ kind, offset, bytes, isWrite, value }: RawAccess): Place | undefined {
    if (kind === "legacy" && isWrite && bytes === 2 && (offset === 0x14 || offset === 0x16)) {
      this.#hasMsix = true;
    }
    const layout = {
      ...{ common: COMMON, device: DEVICE, mmio: MMIO },
      legacy: this.#hasMsix ? LEGACY_MSIX : LEGACY,
    }[kind];
    const entry = layout.findLast(([first]) => first <= offset);
    if (entry === undefined || entry[1] === "") return undefined;
    const [first, register] = entry;
    if (isWrite) this.#follow(register, value);
    const index = register === "device_feature"
      ? this.#deviceWord
      : register === "driver_feature"
      ? this.#driverWord
      : register.startsWith("queue_") && register !== "queue_select"
      ? this.#queue
      : null;
    return { register, offset: offset - first, index };
  }

  #follow(register: string, value: number): void {
    if (register === "device_feature_select") this.#deviceWord = value & 0xffff;
    else if (register === "driver_feature_select") this.#driverWord = value & 0xffff;
    else if (register === "queue_select") this.#queue = value & 0xffff;
    else if (register === "device_status" && value === 0) {
      this.#deviceWord = this.#driverWord = this.#queue = 0;
      this.#hasMsix = false;
    }
  }
}
