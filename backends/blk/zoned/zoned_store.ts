/**
 * A disk in memory that is divided into zones.
 *
 * @module
 */

import { SECTOR_BYTES } from "../request.ts";
import type { StoreControl } from "../store.ts";
import type { ZoneLayout, Zones } from "./zones.ts";

/** A host-managed disk: virtio 1.3, 5.2.4. */
const VIRTIO_BLK_Z_HM = 1;

/** Makes a host-managed disk of a store. Its queues share a thread, which alone uses the zones. */
export function zonedStore(store: StoreControl, zones: Zones): StoreControl {
  return {
    ...store,
    kind: `zoned ${store.kind}`,
    abilities: {
      ...store.abilities,
      // These write anywhere
      ...{ discard: false, writeZeroes: false, unmap: false },
      isOneThread: true,
    },
    resize: undefined,
    describe: () => ({ ...store.describe(), zones: { ...zones.layout, ...zones.counts() } }),
  };
}

/** What config space says of zones: virtio 1.3, 5.2.4. */
export function zonedConfig(layout: ZoneLayout) {
  return {
    zone_sectors: layout.zoneSectors,
    max_open_zones: layout.maxOpen,
    max_active_zones: layout.maxActive,
    max_append_sectors: layout.maxAppendSectors,
    write_granularity: layout.granularitySectors * SECTOR_BYTES,
    model: VIRTIO_BLK_Z_HM,
  };
}
