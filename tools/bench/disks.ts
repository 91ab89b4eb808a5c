/** What both sides serve. */
import { libraryEnvironment } from "../guest/programs.ts";
import { CephCluster } from "../lib/ceph_cluster.ts";
import { NbdServer } from "../lib/nbd_server.ts";
import { fillOverlay, makeOverlays } from "./overlays.ts";
import { type Disk, ownSide, peers } from "./sides.ts";

/** A disk that answers at once. */
export function nullDisk(bytes: number): Disk {
  return { own: ["--null", `--size=${bytes}`], node: () => `driver=null-co,size=${bytes}` };
}

/** A file. */
export function fileDisk(path: string, isDirect: boolean): Disk {
  return {
    own: [`--blk-file=${path}`, ...isDirect ? ["--cache=none"] : []],
    node: (engine) =>
      `driver=file,filename=${path},aio=${engine},cache.direct=${isDirect ? "on" : "off"}`,
  };
}

/** The memory of an NBD server, which ends with `resources`. */
export async function nbdDisk(
  socket: string,
  bytes: number,
  resources: AsyncDisposableStack,
): Promise<Disk> {
  resources.use(await NbdServer.nbdkit({ at: socket, args: [String(bytes)] }));
  const environment = Object.entries(await libraryEnvironment("libnbd0"));
  return {
    through: environment.map((entry) => entry.join("=")),
    own: [`--blk-file=nbd+unix:///?socket=${socket}`],
    node: () => `driver=nbd,server.type=unix,server.path=${socket}`,
  };
}

/** An image in a Ceph cluster, which ends with `resources`; all of it is written. */
export async function rbdDisk(bytes: number, resources: AsyncDisposableStack): Promise<Disk> {
  const cluster = resources.use(await CephCluster.start());
  await cluster.run(
    `rbd create disk --size ${bytes}B; ` +
      `rbd bench disk --io-type write --io-size 4M --io-total ${bytes} --io-threads 4`,
  );
  const { conf, through } = cluster;
  return {
    through,
    own: [`--blk-file=rbd:rbd/disk:conf=${conf}`],
    node: () => `driver=rbd,pool=rbd,image=disk,conf=${conf}`,
  };
}

/** An overlay on a raw image; `isWhole` says whether all of the disk is in it. */
export async function overlayDisk(
  directory: string,
  bytes: number,
  isWhole: boolean,
): Promise<Disk> {
  const { base, own, peer } = await makeOverlays(directory, bytes);
  const file = (name: string, path: string, engine: string | undefined) =>
    `${name}.driver=file,${name}.filename=${path},${name}.aio=${engine}`;
  const disk: Disk = {
    own: [`--overlay=${own}`, `--blk-file=${base}`],
    node: (engine) =>
      `driver=qcow2,${file("file", peer, engine)},` +
      `backing.driver=raw,${file("backing.file", base, engine)}`,
  };
  if (!isWhole) return disk;
  const [newest] = await peers();
  for (const side of [ownSide({}), (await newest.sides("overlay"))[0]]) {
    const socketPath = `${directory}/${side.name.split(" ")[0]}.sock`;
    await fillOverlay(side.command({ socketPath, disk, queues: 1 }), socketPath, base);
  }
  return disk;
}
