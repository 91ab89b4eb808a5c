/**
 * Cells with a Linux guest: TCP between the guest and the host over a TAP, which is our back-end's
 * or QEMU's own. The processor time is QEMU's and the back-end's together.
 */
import { qemuFrontend } from "../../../src/cli/qemu.ts";
import { Guest } from "../../guest/guest.ts";
import { programImage } from "../../guest/program_image.ts";
import type { MachineOptions } from "../../guest/qemu.ts";
import { NetworkNamespace } from "../../lib/network_namespace.ts";
import { ToolError } from "../../lib/tool_error.ts";
import type { NetCell, NetSide } from "./cell.ts";
import { HOST_ADDRESS, iperfServer, MACHINE, makeTap, MAX_SECONDS, OWN } from "./tap_cells.ts";

/** QEMU's own back-end on the same TAP. */
const QEMU_TAP = [
  ...["-netdev", "tap,id=tap,ifname=tap0,script=no,downscript=no,vhost=off"],
  ...["-device", "virtio-net-pci,netdev=tap,romfile="],
];

/** TCP from the guest to the host, and the other way. */
export function guestCells(): NetCell[] {
  return ["sends", "receives"].map((way) => ({
    name: `guest/tcp/${way}`,
    unit: "Mbit",
    own: side("vhostd", true, way === "receives"),
    peer: side("QEMU's tap", false, way === "receives"),
    goals: {
      ratio: { is: "at least", limit: 1 },
      cpu: { is: "at most", limit: 1 },
    },
  }));
}

function side(name: string, isOwn: boolean, isReversed: boolean): NetSide {
  return {
    name,
    async measure(bench) {
      await using made = new AsyncDisposableStack();
      const host = made.use(await NetworkNamespace.create());
      const server = await iperfServer(host, made);
      const disk = `if=virtio,format=raw,read-only=on,file=${await programImage("iperf3")}`;
      const options: MachineOptions = { qemuArguments: ["-drive", disk] };
      const pids: number[] = [];
      if (isOwn) {
        const socketPath = bench.socketPath();
        pids.push(await OWN.start(host, socketPath, made, bench.options.own.flags));
        const frontend = qemuFrontend({ name: "net", deviceId: 1, configBytes: 0, queues: 2 });
        options.devices = [{ kind: "net", socketPath, frontend }];
      } else {
        await makeTap(host);
        options.qemuArguments!.push(...QEMU_TAP);
      }
      const guest = made.use(await Guest.boot({ ...options, through: host.through }));
      pids.push(guest.pid);
      const client = `/mnt/iperf3 --client ${HOST_ADDRESS} --time ${MAX_SECONDS}`;
      const { status, output } = await guest.run(
        `ip link set eth0 up && ip addr add 10.9.0.${MACHINE}/24 dev eth0 && ` +
          "mount -o ro -t ext4 /dev/vda /mnt && " +
          `{ ${client} ${isReversed ? "--reverse" : ""} >/dev/null 2>&1 & }`,
      );
      if (status !== 0) throw new ToolError(`The guest has no network: ${output.trim()}`);
      await server.until("connected to");
      // What QEMU does for its TAP and what it does for the guest cannot be told apart.
      return await bench.sample(pids, false, () => host.megabits("tap0"));
    },
  };
}
