/**
 * Cells of a switch: packets circulate between two cards of one testpmd, and large ones, which
 * testpmd does not make, go from one card of our own front-end to another.
 */
import { networkProgram } from "../../guest/programs.ts";
import { Backend, vhostdCommand } from "../../lib/backend.ts";
import { Testpmd } from "../../lib/testpmd.ts";
import { CardPair } from "./card_pair.ts";
import type { NetCell } from "./cell.ts";
import type { NetBench } from "./net_bench.ts";

const ADDRESSES = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/** How many bursts of 32 packets circulate each way: fewer than a ring holds. */
const BURSTS = 3;

const FRAME_BYTES = [64, 1514];

/** An Ethernet header, and the largest IP packet. */
const LARGE_BYTES = 14 + 65_535;

/** From guest to guest; no other program of this kind is packaged. */
export function switchCells(): NetCell[] {
  return [
    ...FRAME_BYTES.map((bytes): NetCell => ({
      name: `switch/${bytes}/packed`,
      unit: "packet",
      own: {
        name: "vhostd",
        async measure(bench, withSystemCalls) {
          await using served = await serve(bench);
          const devices = served.paths.map((path, i) =>
            `net_virtio_user${i},path=${path},packed_vq=1,mac=${ADDRESSES[i]}`
          );
          const program = await networkProgram("dpdk-testpmd");
          await using guests = await Testpmd.start({ program, devices });
          await guests.ask(`set txpkts ${bytes}`);
          for (const i of [0, 1]) await guests.ask(`set eth-peer ${i} ${ADDRESSES[1 - i]}`);
          await guests.forward("mac", BURSTS);
          return await bench.sample(
            [served.pid],
            withSystemCalls,
            async () => (await guests.counts()).received,
          );
        },
      },
      goals: goals(bytes === 64 ? 2.5e6 : 20e9 / (8 * bytes)),
    })),
    {
      name: "switch/64k-gso/packed",
      unit: "packet",
      own: {
        name: "vhostd",
        async measure(bench, withSystemCalls) {
          await using served = await serve(bench);
          await using cards = await CardPair.start(served.paths, LARGE_BYTES);
          await cards.warm();
          return await bench.sample(
            [served.pid],
            withSystemCalls,
            () => Promise.resolve(cards.received),
          );
        },
      },
      goals: goals(60e9 / (8 * LARGE_BYTES)),
    },
  ];
}

function goals(rate: number): NetCell["goals"] {
  return {
    rate: { is: "at least", limit: rate },
    systemCalls: { is: "below", limit: 0.1 },
  };
}

/** A switch with two ports. */
async function serve(bench: NetBench) {
  const paths = [bench.socketPath(), bench.socketPath()];
  const { flags, v8Flags } = bench.options.own;
  const ports = paths.map((path) => `--port=${path}`);
  const backend = new Backend(vhostdCommand(["switch", ...ports, ...flags], v8Flags), {
    socketPath: paths[1],
  });
  await backend.listening();
  return { paths, pid: backend.pid, [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose]() };
}
