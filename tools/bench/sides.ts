/** What is measured: vhostd, and qemu-storage-daemon in each of its modes. */
import { run } from "../lib/process.ts";
import { vhostdCommand } from "../lib/backend.ts";
import { cephEnvironment, qemuOfVersion, type QemuVersion } from "../guest/programs.ts";
import type { Drive, StoreName } from "./cells.ts";

const PEER = "qemu-storage-daemon";

const INSTANT_STORE = new URL("instant_store.ts", import.meta.url).pathname;

/** A disk, as both sides name it. */
export interface Disk {
  /** Words before their commands, after `env`. */
  through?: readonly string[];
  /** Flags of ours. */
  own: readonly string[];
  /** The peer's node; an engine says how it reads and writes files. */
  node(engine: string | undefined): string;
}

export interface Service {
  socketPath: string;
  disk: Disk;
  queues: number;
}

/** A back-end, in one of its modes. */
export interface Side {
  /** Such as `qemu-storage-daemon`. */
  name: string;
  /** Such as `io_uring, iothread`; may be empty. */
  mode: string;
  command(service: Service): [string, ...string[]];
}

/** How vhostd is started, beyond what is measured. */
export interface OwnOptions {
  flags?: readonly string[];
  v8Flags?: readonly string[];
}

/** Ours: one thread per queue. */
export function ownSide(
  { pollUs, isPacked, hasRecord, typescript }: Partial<Drive>,
  options: OwnOptions = {},
): Side {
  const { flags = [], v8Flags } = options;
  const mode = [
    ...isPacked ? ["packed"] : [],
    ...hasRecord ? ["in-flight record"] : [],
    ...typescript ? [`TypeScript, answers ${typescript === "now" ? "at once" : "by promise"}`] : [],
    ...pollUs !== undefined ? [pollUs === 0 ? "never polls" : `polls ${pollUs} µs`] : [],
    ...flags,
  ];
  return {
    name: "vhostd",
    mode: mode.join(", "),
    command: ({ socketPath, disk: { through = [], own }, queues }) => [
      "env",
      ...through,
      ...vhostdCommand([
        "blk",
        `--socket-path=${socketPath}`,
        ...typescript !== undefined
          ? [`--blk-file=${INSTANT_STORE}`, `--store-options=answers=${typescript}`]
          : own,
        `--num-queues=${queues}`,
        `--threads=${queues}`,
        ...pollUs !== undefined ? [`--poll-us=${pollUs}`] : [],
        ...flags,
      ], v8Flags),
    ],
  };
}

export interface Peer {
  /** Such as `11.1.3`. */
  version: string;
  /** Its modes for a store. */
  sides(store: StoreName): Promise<Side[]>;
}

/** The newest version of the peer that Debian has. */
export const NEWEST_PEER = "11.1";

/** The versions that are measured: beside the newest, the one that most people run. */
const PEER_VERSIONS = [NEWEST_PEER, "10.0"] as const;

const found: Promise<Peer>[] = [];

/** The versions of the peer, the newest first; what is missing is downloaded. */
export async function peers(): Promise<Peer[]> {
  if (found.length === 0) found.push(...PEER_VERSIONS.map(findPeer));
  return await Promise.all(found);
}

async function findPeer(wanted: QemuVersion): Promise<Peer> {
  const program = await qemuOfVersion(wanted, PEER);
  const version = await versionOf(program);
  return {
    version,
    async sides(store: StoreName) {
      // Only that of this machine's release can have the very librbd that ours has
      return store === "rbd"
        ? peerSides(PEER, await versionOf("env", ...await cephEnvironment(), PEER), store)
        : peerSides(program, version, store);
    },
  };
}

async function versionOf(program: string, ...args: string[]): Promise<string> {
  const about = await run(program, [...args, "--version"]);
  return about.match(/version (\d[\d.]*)/)![1];
}

function peerSides(program: string, version: string, store: StoreName): Side[] {
  const engines = ["null", "nbd", "rbd"].includes(store)
    ? [undefined]
    // Linux's older way of asynchronous I/O, which needs O_DIRECT.
    : store === "disk-direct"
    ? ["io_uring", "native", "threads"]
    : ["io_uring", "threads"];
  return engines.flatMap((engine) =>
    [true, false].map((hasThread) => peerSide(program, version, engine, hasThread))
  );
}

function peerSide(
  program: string,
  version: string,
  engine: string | undefined,
  hasThread: boolean,
): Side {
  return {
    name: `${PEER} ${version}`,
    mode: [...engine ? [engine] : [], hasThread ? "iothread" : "main loop"].join(", "),
    command({ socketPath, disk: { through = [], node }, queues }) {
      return [
        "env",
        ...through,
        program,
        ...hasThread ? ["--object", "iothread,id=t"] : [],
        ...["--blockdev", `node-name=n,${node(engine)}`],
        "--export",
        `vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=${socketPath},writable=on,` +
        `num-queues=${queues}${hasThread ? ",iothread=t" : ""}`,
      ];
    },
  };
}
