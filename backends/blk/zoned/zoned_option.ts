/**
 * The option that divides a disk in memory into zones.
 *
 * @module
 */

import { OptionError, type Options, type OptionValues, parseOptionList } from "../../../mod.ts";
import { SECTOR_BYTES } from "../request.ts";
import type { ZoneLayout } from "./zones.ts";

const MODEL = "host-managed";

/** The most zones of a disk: their states are memory of the host. */
const MAX_ZONES = 2 ** 20;

/** The largest zone by default, and the zones that a disk then has at least. */
const DEFAULT_ZONE_BYTES = 2 ** 28, DEFAULT_ZONES = 16;

/** The largest append. */
const MAX_APPEND_SECTORS = 2 ** 14;

const ZONE_OPTIONS = {
  size: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 4096,
    most: 2 ** 40,
    about: "size of a zone, a power of 2; by default up to 256M",
  },
  capacity: {
    type: "number",
    unit: "bytes",
    placeholder: "SIZE",
    least: 512,
    about: "how much of a zone can be written; by default all",
  },
  conventional: {
    type: "number",
    placeholder: "N",
    least: 0,
    default: 0,
    about: "zones at the beginning that can be written anywhere",
  },
  open: { type: "number", placeholder: "N", least: 0, default: 0, about: "most open zones" },
  active: { type: "number", placeholder: "N", least: 0, default: 0, about: "most active zones" },
} as const satisfies Options;

/**
 * Parses `host-managed[,NAME=VALUE…]` for a disk of a size and a block size.
 *
 * @throws {OptionError} When there is no such model or layout.
 */
export function parseZoned(text: string, diskBytes: number, blockBytes: number): ZoneLayout {
  const [model, ...words] = text.split(",");
  if (model !== MODEL) {
    throw new OptionError(`--zoned takes ${MODEL}[,NAME=VALUE…], got ${JSON.stringify(text)}`);
  }
  const values = parseOptionList("zoned", MODEL, ZONE_OPTIONS, words.join(","));
  const { conventional, open, active, ...sizes } = values as OptionValues<typeof ZONE_OPTIONS>;
  const usual = 2 ** Math.floor(Math.log2(diskBytes / DEFAULT_ZONES));
  const size = sizes.size ?? Math.max(blockBytes, Math.min(DEFAULT_ZONE_BYTES, usual));
  const capacity = sizes.capacity ?? size;
  const zones = Math.ceil(diskBytes / size);
  const refuse = (expected: string, got: number): never => {
    throw new OptionError(`--zoned: expected ${expected}, got ${got}`);
  };
  if (!Number.isInteger(Math.log2(size))) refuse("a power of 2 as size", size);
  if (size % blockBytes !== 0) refuse(`a size that is a multiple of ${blockBytes}`, size);
  if (capacity > size) refuse(`a capacity of at most the size, ${size}`, capacity);
  if (capacity % blockBytes !== 0) {
    refuse(`a capacity that is a multiple of ${blockBytes}`, capacity);
  }
  if (zones > MAX_ZONES) {
    refuse(`at most ${MAX_ZONES} zones; give a larger size than ${size}`, zones);
  }
  if (conventional >= zones) {
    refuse(`fewer conventional zones than there are, ${zones}`, conventional);
  }
  if (active > 0 && open > active) refuse(`at most as many open zones as active, ${active}`, open);
  const capacitySectors = capacity / SECTOR_BYTES;
  return {
    sectors: diskBytes / SECTOR_BYTES,
    zoneSectors: size / SECTOR_BYTES,
    capacitySectors,
    conventional,
    maxOpen: open,
    maxActive: active,
    maxAppendSectors: Math.min(capacitySectors, MAX_APPEND_SECTORS),
    granularitySectors: blockBytes / SECTOR_BYTES,
  };
}
