/**
 * The network device: virtio 1.3, 5.1.
 *
 * Its config space is the front-end's: QEMU makes it itself (MAC address, link status, MTU), and
 * strips the protocol feature CONFIG from a back-end that offers it. The control queue is the
 * front-end's too.
 *
 * @module
 */

import { defineDevice } from "../../mod.ts";
import { countMemory, PacketCounts } from "./counts.ts";
import { impairmentFrom } from "./impairment/impairment.ts";
import { netOptions } from "./options.ts";
import { ALL_OFFLOADS, type Offload } from "./packet.ts";
import type { Network } from "./port.ts";
import { checkPort, openNetwork, openPort } from "./ports.ts";
import { type PairContext, QueuePair } from "./queue_pair.ts";
import { rarpPacket } from "./rarp.ts";
import { Traffic, type TrafficMessage, type TrafficOptions } from "./traffic.ts";

/** A virtio network device. */
export default defineDevice({
  name: "net",
  deviceId: 1, // virtio 1.3, 5.1.1
  about: "A network card",
  module: import.meta.url,
  panel: import.meta.resolve("./panel.ts"),

  // virtio 1.3, 5.1.2 Virtqueues
  queues: {
    receiveq: {
      about: "Buffers for packets to the guest",
      ...{ sender: "device", family: "pair", kinds: ["RX"] },
    },
    transmitq: { about: "Packets from the guest", family: "pair", kinds: ["TX"] },
  },

  // virtio 1.3, 5.1.3 Feature bits, those of the control queue left out
  features: {
    CSUM: { bit: 0, about: "Takes packets with partial checksums" },
    GUEST_CSUM: { bit: 1, about: "The driver takes packets with partial checksums" },
    MTU: { bit: 3, about: "Tells its MTU" },
    GUEST_TSO4: { bit: 7, about: "The driver takes large TCP packets over IPv4" },
    GUEST_TSO6: { bit: 8, about: "The driver takes large TCP packets over IPv6" },
    GUEST_ECN: { bit: 9, about: "The driver takes large TCP packets with ECN" },
    GUEST_UFO: { bit: 10, about: "The driver takes large UDP packets that become IP fragments" },
    HOST_TSO4: { bit: 11, about: "Takes large TCP packets over IPv4" },
    HOST_TSO6: { bit: 12, about: "Takes large TCP packets over IPv6" },
    HOST_ECN: { bit: 13, about: "Takes large TCP packets with ECN" },
    HOST_UFO: { bit: 14, about: "Takes large UDP packets that become IP fragments" },
    MRG_RXBUF: { bit: 15, about: "A packet to the driver may fill several buffers" },
    GUEST_ANNOUNCE: { bit: 21, about: "The driver can announce itself to the network" },
    MQ: { bit: 22, about: "Has several pairs of queues" },
    GUEST_USO4: { bit: 54, about: "The driver takes large UDP packets over IPv4" },
    GUEST_USO6: { bit: 55, about: "The driver takes large UDP packets over IPv6" },
    HOST_USO: { bit: 56, about: "Takes large UDP packets" },
  },

  options: netOptions,

  checkOptions([options]) {
    checkPort(options);
    impairmentFrom(options);
  },

  async open({ options, log, post }) {
    await using made = new AsyncDisposableStack();
    const network = made.use(await openNetwork(options, log));
    const card = openCard(network, { options, log, post });
    made.move();
    return card;
  },

  handlers({ shared, features, memory: { base, u8 }, watch, keep, notice, post }) {
    const { plan, counts, mtu, impairment, capture } = shared;
    const pairs: QueuePair[] = [];
    const context: PairContext = {
      ...{ counts, mtu, features, memory: u8, base, watch, keep, notice, impairment, capture },
      open: (owner, pair) => openPort(plan, owner, pair),
      wake: () => post(null),
    };
    return {
      queues: {
        receiveq: (queue) => pairs[queue.ordinal].receive(queue),
        transmitq: (chain, queue) => pairs[queue.ordinal].transmit(chain),
      },
      onBatch(queue) {
        pairs[queue.ordinal].flush();
      },
      onStart(queue) {
        (pairs[queue.ordinal] ??= new QueuePair(context, queue.ordinal)).start(queue);
      },
      onEnable(queue) {
        pairs[queue.ordinal].enable(queue);
      },
      onStop(queue) {
        pairs[queue.ordinal].stop(queue);
      },
      // Only a port of a single pair has something to report.
      report: () => pairs[0]?.report(),
      onMessage(message) {
        const { announced, impairment, capture } = message as CardMessage;
        if (announced !== undefined) pairs[0]?.announce(announced);
        if (impairment !== undefined) {
          context.impairment = impairment;
          for (const pair of pairs) pair?.impair();
        }
        if (capture !== undefined) {
          context.capture = capture;
          for (const pair of pairs) pair?.capture();
        }
      },
      close() {
        for (const pair of pairs) pair?.[Symbol.dispose]();
      },
    };
  },
});

/** A message of the control half. */
interface CardMessage extends TrafficMessage {
  /** A packet that is sent on behalf of the guest. */
  readonly announced?: Uint8Array;
}

/** What the control half of a card needs. */
export interface CardContext {
  /** Its name in captures; by default its port's. */
  readonly name?: string;
  readonly options: TrafficOptions & { readonly queuePairs: number };
  post(message: CardMessage): Promise<unknown>;
  log(message: string): void;
}

/**
 * The control half of a network card. The network is the card's.
 *
 * @throws {OptionError} When an option of an impairment or a capture is wrong.
 */
export function openCard(network: Network, { name, options, post, log }: CardContext) {
  const { mtu } = network;
  const { queuePairs } = options;
  const traffic = new Traffic(options, {
    name: name ?? String(network.report().port),
    pairs: queuePairs,
    post,
    setLink: network.setLink,
    log,
  });
  let frontendMtu: number | undefined; // what QEMU tells the driver by its host_mtu
  const counts = countMemory(queuePairs);
  let offloads: string[] = []; // those that the driver acknowledged
  const lacking = ALL_OFFLOADS.filter((name) => !network.offloads.includes(name));
  return {
    offer: { MQ: queuePairs > 1, ...Object.fromEntries(lacking.map((name) => [name, false])) },
    queues: { pair: queuePairs },
    shared: { plan: network.plan, counts, mtu, ...traffic.shared },
    onMessage: () => traffic.onMessage(),
    onFeatures(features: Readonly<Record<Offload, boolean>>) {
      offloads = ALL_OFFLOADS.filter((name) => features[name]);
      network.onFeatures?.(features);
    },
    requests: {
      NET_SET_MTU({ value }: { value: bigint }) {
        frontendMtu = Number(value);
      },
      async SEND_RARP({ value }: { value: bigint }) {
        await post({ announced: rarpPacket(value) });
      },
    },
    queries: traffic.queries,
    commands: traffic.commands,
    report: () => ({
      ...network.report(),
      mtu,
      ...traffic.report(),
      ...frontendMtu !== undefined && { frontendMtu },
      pairs: { enabled: PacketCounts.enabledPairs(counts), offered: queuePairs },
      offloads,
      sent: PacketCounts.total(counts, 0),
      received: PacketCounts.total(counts, 1),
    }),
    async [Symbol.asyncDispose]() {
      await traffic[Symbol.asyncDispose]();
      await network[Symbol.asyncDispose]();
    },
  };
}
