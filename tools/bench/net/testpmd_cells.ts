/** Cells whose driver is DPDK's testpmd; the peer is testpmd's own vhost back-end. */
import { networkProgram } from "../../guest/programs.ts";
import { Backend, vhostdCommand } from "../../lib/backend.ts";
import { Testpmd } from "../../lib/testpmd.ts";
import { collectionsUntilEnd } from "../extras.ts";
import type { NetCell, NetSide } from "./cell.ts";
import type { NetBench } from "./net_bench.ts";

/** A back-end's process that serves a socket. */
interface Served extends AsyncDisposable {
  readonly pid: number;
}

interface Direction {
  name: string;
  /** What the driver does, and the peer. */
  driver: "txonly" | "rxonly";
  peer: "txonly" | "rxonly";
  /** The flag for our port. */
  port: string;
  goal: number;
}

const DIRECTIONS: Direction[] = [
  { name: "null", driver: "txonly", peer: "rxonly", port: "--null", goal: 5e6 },
  { name: "source", driver: "rxonly", peer: "txonly", port: "--source=64", goal: 4e6 },
];

const RINGS = { split: "", packed: ",packed_vq=1" };

/** Packets of 64 bytes, one queue pair. */
export function testpmdCells(): NetCell[] {
  return DIRECTIONS.flatMap((direction) =>
    Object.entries(RINGS).map(([name, settings]): NetCell => ({
      name: `${direction.name}/64/${name}`,
      unit: "packet",
      own: side("vhostd", direction, settings, serveOwn),
      peer: side("testpmd", direction, settings, servePeer),
      goals: {
        rate: { is: "at least", limit: direction.goal },
        ...direction.name === "null" && { ratio: { is: "at least", limit: 0.3 } },
        systemCalls: { is: "below", limit: 0.1 },
      },
    }))
  );
}

const ECHO = new URL("echo_network.ts", import.meta.url).pathname;

/** How many bursts of 32 packets circulate between testpmd and a network that returns them. */
const BURSTS = 4;

/** A function that returns each packet, which testpmd sends again. */
export function handlerCells(): NetCell[] {
  const direction = { port: `--handler=${ECHO}` };
  return Object.entries(RINGS).map(([name, settings]): NetCell => ({
    name: `handler/64/${name}`,
    unit: "packet",
    own: {
      name: "vhostd",
      async measure(bench, withSystemCalls) {
        const socketPath = bench.socketPath();
        await using backend = await serveOwn(bench, socketPath, direction);
        await using driver = await startDriver(socketPath, settings);
        await driver.forward("mac", BURSTS);
        const received = async () => (await driver.counts()).received;
        return await bench.sample([backend.pid], withSystemCalls, received);
      },
    },
    goals: { systemCalls: { is: "below", limit: 0.1 } },
  }));
}

type Serve = (bench: NetBench, socketPath: string, direction: Direction) => Promise<Served>;

function side(name: string, direction: Direction, settings: string, serve: Serve): NetSide {
  return {
    name,
    async measure(bench, withSystemCalls) {
      const socketPath = bench.socketPath();
      await using backend = await serve(bench, socketPath, direction);
      await using driver = await startDriver(socketPath, settings);
      await driver.forward(direction.driver);
      return await bench.sample([backend.pid], withSystemCalls, async () => {
        const { sent, received } = await driver.counts();
        return sent + received;
      });
    },
  };
}

async function startDriver(socketPath: string, settings = ""): Promise<Testpmd> {
  return await Testpmd.start({
    program: await networkProgram("dpdk-testpmd"),
    devices: [`net_virtio_user0,path=${socketPath}${settings}`],
  });
}

async function serveOwn(
  { options }: NetBench,
  socketPath: string,
  { port }: Pick<Direction, "port">,
  more: readonly string[] = [],
) {
  const { flags, v8Flags } = options.own;
  const args = ["net", `--socket-path=${socketPath}`, port, ...flags];
  const backend = new Backend(vhostdCommand(args, [...v8Flags, ...more]), { socketPath });
  await backend.listening();
  return backend;
}

/** Garbage collections of ours, and of how many packets. */
export interface NetCollections {
  name: string;
  collections: number;
  packets: number;
}

/** Counts garbage collections: those of a long run, less those of a short one. */
export async function netCollections(bench: NetBench): Promise<NetCollections[]> {
  const results: NetCollections[] = [];
  for (const direction of DIRECTIONS) {
    const short = await collectionsOf(bench, direction, 1);
    const long = await collectionsOf(bench, direction, 1 + 5 * bench.options.seconds);
    const [collections, packets] = long.map((count, i) => Math.max(0, count - short[i]));
    results.push({ name: direction.name, collections, packets });
  }
  return results;
}

async function collectionsOf(bench: NetBench, direction: Direction, seconds: number) {
  const socketPath = bench.socketPath();
  await using backend = await serveOwn(bench, socketPath, direction, ["--trace-gc"]);
  await using driver = await startDriver(socketPath);
  await driver.forward(direction.driver);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const { sent, received } = await driver.counts();
  await driver.quit();
  return [await collectionsUntilEnd(backend), sent + received];
}

async function servePeer(_: NetBench, socketPath: string, { peer }: Direction) {
  const testpmd = await Testpmd.start({
    program: await networkProgram("dpdk-testpmd"),
    devices: [`net_vhost0,iface=${socketPath}`],
    processor: 0,
  });
  await testpmd.forward(peer);
  return testpmd;
}
