/** A driver of a disk that fails: what it asks, and what the record says of it. */
import { concat } from "@std/bytes";
import type { Failure } from "../../../backends/blk/shared_state.ts";
import type { DeviceServer } from "../../../mod.ts";
import { BlkDriver, blkHeader, blkRequests, blkStatus } from "../../../src/frontend/mod.ts";
import type { Random } from "../../lib/random.ts";
import { divide, type Life } from "../device/life.ts";

export const SECTOR_BYTES = 512;

/** The kinds of requests, by name. */
export const KINDS = ["IN", "OUT", "FLUSH", "DISCARD", "WRITE_ZEROES"] as const;
export type Kind = typeof KINDS[number];

/** A request about a range of the disk, of one segment or more. */
export interface DiskRequest {
  kind: Kind;
  sector: number;
  sectors: number;
  data: Uint8Array<ArrayBuffer>;
}

/** A request about `sectors` sectors from `sector` on. */
export function diskRequest(
  random: Random,
  kind: Kind,
  sector: number,
  sectors: number,
): DiskRequest {
  const bytes = kind === "OUT" ? sectors * SECTOR_BYTES : 0;
  return { kind, sector, sectors, data: new Uint8Array(bytes).map(() => random.u32()) };
}

/** Makes a request on a queue; returns its status and what was read. */
export async function ask(
  { random, driver }: Pick<Life, "random" | "driver">,
  { kind, sector, sectors, data }: DiskRequest,
  queue = 0,
): Promise<{ status: number; data: Uint8Array }> {
  const disk = new BlkDriver(driver);
  switch (kind) {
    case "IN":
      return await disk.read(sector, 0, { queue, parts: divide(random, sectors * SECTOR_BYTES) });
    case "OUT":
      return await disk.write(sector, data, { queue, parts: divide(random, data.length) });
    case "FLUSH":
      return await disk.flush({ queue });
    default: {
      // Two segments, where there is something to divide.
      const first = random.below(sectors);
      const ranges = first === 0 ? [[0, sectors]] : [[0, first], [first, sectors - first]];
      const segments = ranges.map(([from, count]) => {
        const view = new DataView(new ArrayBuffer(16));
        view.setBigUint64(0, BigInt(sector + from), true);
        view.setUint32(8, count, true);
        view.setUint32(12, kind === "WRITE_ZEROES" ? random.below(2) : 0, true);
        return new Uint8Array(view.buffer);
      });
      return await disk.request(blkHeader(blkRequests[kind], sector), [concat(segments)], [], {
        queue,
      });
    }
  }
}

/** What the record knows of failed requests, the latest last: at most 8. */
export function failures(server: DeviceServer): Failure[] {
  return (server.host.control.report!() as { failures: Failure[] }).failures;
}

/** How many requests the record counted with a status. */
function counted(server: DeviceServer, status: keyof typeof blkStatus): number {
  const { statuses } = server.host.control.report!() as { statuses: Record<string, number> };
  return statuses[status];
}

/**
 * Makes a request alone, and checks that the record names it if it failed; returns the error by
 * name, or undefined when it was done; and what was read.
 */
export async function askAlone(
  life: Life,
  request: DiskRequest,
): Promise<{ error: string | undefined; data: Uint8Array }> {
  const { server, tally } = life;
  const before = counted(server, "IOERR");
  const { status, data } = await ask(life, request);
  const after = counted(server, "IOERR");
  if (status === blkStatus.OK) {
    if (after !== before) throw new Error("A request that was done is counted as failed");
    tally.add(`${request.kind} done`);
    return { error: undefined, data };
  }
  if (status !== blkStatus.IOERR || after !== before + 1) {
    throw new Error(`Expected one failure with status 1, got ${after - before}, status ${status}`);
  }
  const { request: kind, sector, error } = failures(server).at(-1)!;
  const expectedSector = request.kind === "FLUSH" ? 0 : request.sector;
  if (kind !== request.kind || sector !== expectedSector) {
    throw new Error(
      `Expected ${request.kind} of sector ${request.sector} as the latest failure, got ${kind} of ${sector}`,
    );
  }
  tally.add(`${request.kind} failed with ${error}`);
  return { error, data };
}
