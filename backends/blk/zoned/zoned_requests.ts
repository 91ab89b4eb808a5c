/**
 * Requests to a host-managed disk: virtio 1.3, 5.2.6.
 *
 * @module
 */

import { REFUSED, type Request, SECTOR_BYTES, VIRTIO_BLK_T } from "../request.ts";
import type { Zones } from "./zones.ts";

/** Whether requests of a type change zones, and nothing else. */
function managesZones(type: number): boolean {
  return type >= VIRTIO_BLK_T.ZONE_OPEN && type <= VIRTIO_BLK_T.ZONE_RESET_ALL && type % 2 === 0;
}

/** Checks the form of a request of a zoned type and decides on its steps; or says why it is refused. */
export function prepareZoned(request: Request, readOnly: boolean): number {
  const { type } = request;
  if (type === VIRTIO_BLK_T.ZONE_REPORT) return request.takeData(0);
  if (type !== VIRTIO_BLK_T.ZONE_APPEND && !managesZones(type)) return REFUSED.UNSUPPORTED;
  if (readOnly) return REFUSED.READ_ONLY;
  if (type === VIRTIO_BLK_T.ZONE_APPEND) {
    request.steps = 1;
    return request.takeAppend();
  }
  request.steps = Number(type >= VIRTIO_BLK_T.ZONE_RESET); // data that is gone reads as zeroes
  return 0;
}

/** Carries out what a request means for zones; returns 0, or why it is refused. */
export function admitZoned(request: Request, zones: Zones): number {
  const { type, sector } = request;
  switch (type) {
    case VIRTIO_BLK_T.IN:
      return zones.read(sector, request.bytes / SECTOR_BYTES);
    case VIRTIO_BLK_T.OUT:
      return zones.write(sector, request.bytes / SECTOR_BYTES);
    case VIRTIO_BLK_T.ZONE_APPEND: {
      const at = zones.append(sector, request.bytes / SECTOR_BYTES);
      if (at < 0) return at;
      request.appendedSector = at;
      request.offset = at * SECTOR_BYTES;
      return 0;
    }
    case VIRTIO_BLK_T.ZONE_REPORT:
      return zones.report(request.data, request.bytes, sector);
    case VIRTIO_BLK_T.ZONE_OPEN:
      return zones.manage("open", sector);
    case VIRTIO_BLK_T.ZONE_CLOSE:
      return zones.manage("close", sector);
    case VIRTIO_BLK_T.ZONE_FINISH:
      return zones.manage("finish", sector);
    case VIRTIO_BLK_T.ZONE_RESET: {
      const [first, sectors] = zones.range(sector);
      request.offset = first * SECTOR_BYTES;
      request.bytes = sectors * SECTOR_BYTES;
      return zones.manage("reset", sector);
    }
    case VIRTIO_BLK_T.ZONE_RESET_ALL: {
      const { sectors, zoneSectors, conventional } = zones.layout;
      request.offset = conventional * zoneSectors * SECTOR_BYTES;
      request.bytes = sectors * SECTOR_BYTES - request.offset;
      zones.resetAll();
      return 0;
    }
    default:
      return 0;
  }
}
