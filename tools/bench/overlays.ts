/** Overlays on one base, for both sides: with nothing in them, or with all of the disk. */
import { BlkDriver, blkStatus, VirtioDriver } from "../../src/frontend/mod.ts";
import { qemuOfVersion } from "../guest/programs.ts";
import { Backend } from "../lib/backend.ts";
import { run } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";
import { Image } from "./image.ts";
import { NEWEST_PEER } from "./sides.ts";

/** Overlays of both on a raw image. */
interface Overlays {
  base: string;
  own: string;
  peer: string;
}

const WRITE_BYTES = 2 ** 20;
const SECTOR_BYTES = 512;

/** Makes the base, and the peer's overlay, empty; ours is made when it is first served. */
export async function makeOverlays(directory: string, bytes: number): Promise<Overlays> {
  const { path: base } = await Image.create(`${directory}/base.img`, bytes);
  const overlay = { base, own: `${directory}/own.img`, peer: `${directory}/peer.qcow2` };
  const program = await qemuOfVersion(NEWEST_PEER, "qemu-img");
  await run(program, ["create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay.peer]);
  return overlay;
}

/**
 * Writes all of the disk into the overlay that a back-end serves. Both sides' are written by the
 * same requests: how large the writes are decides how the kernel keeps a file, and so what writing
 * to it costs later.
 */
export async function fillOverlay(
  command: [string, ...string[]],
  socketPath: string,
  base: string,
): Promise<void> {
  await using backend = new Backend(command, { socketPath });
  await backend.accepting();
  await using driver = await VirtioDriver.start(socketPath, { queues: [64] });
  const disk = new BlkDriver(driver);
  const data = new Uint8Array(WRITE_BYTES);
  using file = await Deno.open(base);
  for (let at = 0, read; (read = await file.read(data)) !== null; at += read) {
    const { status } = await disk.write(at / SECTOR_BYTES, data.subarray(0, read));
    if (status !== blkStatus.OK) throw new ToolError(`Expected a write at ${at} to succeed`);
  }
  await disk.flush();
}
