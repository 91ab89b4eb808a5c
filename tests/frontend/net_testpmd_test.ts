/** The network device with a driver that is not ours: DPDK's virtio_user, of Debian 13. */
import { assert, assertEquals } from "@std/assert";
import { networkProgram } from "../../tools/guest/programs.ts";
import { Backend, vhostdCommand } from "../../tools/lib/backend.ts";
import { Testpmd } from "../../tools/lib/testpmd.ts";

/** DPDK has separate code for each of these. */
const DRIVERS = [
  { name: "split", settings: "mrg_rxbuf=1,in_order=0" },
  { name: "split, in order", settings: "mrg_rxbuf=1,in_order=1" },
  { name: "split, vectorized", settings: "mrg_rxbuf=0,in_order=0,vectorized=1" },
  { name: "packed", settings: "packed_vq=1,mrg_rxbuf=1,in_order=0" },
  { name: "packed, vectorized", settings: "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1" },
  {
    name: "packed, in order, two pairs",
    settings: "packed_vq=1,in_order=1,queues=2,cq=1",
    pairs: 2,
  },
];

/**
 * The sizes of the parts of each packet that testpmd sends, 500 bytes in all. In packed rings it
 * sends several parts by indirect descriptors. Where the index of one is that of the ring's
 * descriptor, it leaves WRITE set in it (virtqueue_enqueue_xmit_packed), which breaks the queue.
 */
const PARTS = { split: "14,400,86", packed: "500" };

/** virtio_user's default. */
const RING_SIZE = 256;

let program: string | undefined;
let missing = "";
try {
  program = await networkProgram("dpdk-testpmd");
} catch (error) {
  missing = ` (needs dpdk-dev of Debian 13: ${(error as Error).message})`;
}

for (const { name, settings, pairs = 1 } of DRIVERS) {
  Deno.test({
    name: `net exchanges packets with testpmd (${name})${missing}`,
    ignore: program === undefined,
    fn: async () => {
      await using stack = new AsyncDisposableStack();
      const directory = await Deno.makeTempDir();
      stack.defer(() => Deno.remove(directory, { recursive: true }));
      const [socketPath, controlPath] = [`${directory}/net.sock`, `${directory}/control.sock`];
      const flags = [`--socket-path=${socketPath}`, `--control-path=${controlPath}`];
      const command = vhostdCommand(["net", ...flags, "--source=1514", `--queue-pairs=${pairs}`]);
      const backend = stack.use(new Backend(command, { socketPath, controlPath }));
      await backend.listening();
      const testpmd = stack.use(
        await Testpmd.start({
          program: program!,
          devices: [`net_virtio_user0,path=${socketPath},${settings}`],
          queues: pairs,
        }),
      );
      // deno-lint-ignore no-explicit-any
      const report = async () => (await backend.record()).report as any;

      await testpmd.ask(`set txpkts ${PARTS[settings.includes("packed") ? "packed" : "split"]}`);
      await testpmd.forward("txonly");
      while ((await report()).sent.packets < 20_000);
      await testpmd.ask("stop");
      const first = await testpmd.counts();
      assertEquals(first.sentBytes, 500 * first.sent);
      while ((await report()).sent.packets < first.sent);
      assertEquals((await report()).sent.bytes, first.sentBytes);

      await testpmd.forward("rxonly");
      while ((await testpmd.counts()).received < 20_000);
      await testpmd.forward("macswap"); // returns the packets that it receives
      while ((await testpmd.counts()).sent < first.sent + 10_000);
      await testpmd.ask("stop");
      const { sent, sentBytes, received, receivedBytes } = await testpmd.counts();
      assertEquals(receivedBytes, 1514 * received);
      while ((await report()).sent.packets < sent);
      const record = await report();
      assertEquals([record.sent.packets, record.sent.bytes], [sent, sentBytes]);
      const unread = record.received.packets - received;
      assert(unread >= 0 && unread <= pairs * RING_SIZE, `${unread}`);
      assertEquals([record.sent.drops, record.received.drops], [{}, {}]);
      assertEquals((await testpmd.quit()).code, 0);
    },
  });
}
