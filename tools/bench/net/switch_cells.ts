/** Cells of a switch: packets circulate between two cards of one testpmd. */
import { networkProgram } from "../../guest/programs.ts";
import { Backend, vhostdCommand } from "../../lib/backend.ts";
import { Testpmd } from "../../lib/testpmd.ts";
import type { NetCell } from "./cell.ts";

const ADDRESSES = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/** How many bursts of 32 packets circulate each way: fewer than a ring holds. */
const BURSTS = 3;

const FRAME_BYTES = [64, 1514];

/** From guest to guest; no other program of this kind is packaged. */
export function switchCells(): NetCell[] {
  return FRAME_BYTES.map((bytes): NetCell => ({
    name: `switch/${bytes}/packed`,
    unit: "packet",
    own: {
      name: "vhostd",
      async measure(bench, withSystemCalls) {
        const [from, to] = [bench.socketPath(), bench.socketPath()];
        const { flags, v8Flags } = bench.options.own;
        const ports = [`--port=${from}`, `--port=${to}`];
        await using backend = new Backend(vhostdCommand(["switch", ...ports, ...flags], v8Flags), {
          socketPath: to,
        });
        await backend.listening();
        const devices = [from, to].map((path, i) =>
          `net_virtio_user${i},path=${path},packed_vq=1,mac=${ADDRESSES[i]}`
        );
        const program = await networkProgram("dpdk-testpmd");
        await using guests = await Testpmd.start({ program, devices });
        await guests.ask(`set txpkts ${bytes}`);
        for (const i of [0, 1]) await guests.ask(`set eth-peer ${i} ${ADDRESSES[1 - i]}`);
        await guests.forward("mac", BURSTS);
        return await bench.sample(
          [backend.pid],
          withSystemCalls,
          async () => (await guests.counts()).received,
        );
      },
    },
    goals: {
      // 20 Gbit/s of large packets.
      rate: { is: "at least", limit: bytes === 64 ? 2.5e6 : 20e9 / (8 * bytes) },
      systemCalls: { is: "below", limit: 0.1 },
    },
  }));
}
