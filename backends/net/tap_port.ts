/**
 * A port on a TAP: packets go straight between guest memory and the kernel, one system call each.
 *
 * @module
 */

import { OptionError, type Parts, type Watch } from "../../mod.ts";
import {
  adoptTap,
  attachTapQueue,
  CURRENT_POSITION,
  drainEventfd,
  Errno,
  errno,
  errnoName,
  Fd,
  hasHungUp,
  IoVectors,
  isPacketSocket,
  LinuxError,
  NetworkInterface,
  openTap,
  readList,
  setCloseOnExec,
  setNonblocking,
  setTapCarrier,
  setTapOffload,
  signalEventfd,
  TapOffload,
  writeVectors,
} from "../../src/linux/mod.ts";
import { Drop, FULL, HEADER_BYTES, type Offload, SENT } from "./packet.ts";
import type { Network, Port, PortOwner, TapPlan } from "./port.ts";
import type { ReceiveWindow } from "./receive_window.ts";
import { TapReturn } from "./tap_return.ts";

/** How many reads without a packet there are before other queues have their turn. */
const MAX_TRIES = 64;

/** The port of a pair: one queue of the TAP. The descriptor stays the control half's. */
export class TapPort implements Port {
  readonly #fd: number;
  readonly #isTap: boolean;
  readonly #isMultiQueue: boolean;
  readonly #owner: PortOwner;
  readonly #vectors = new IoVectors();
  readonly #lost: number | undefined;
  readonly #back: Disposable | undefined;
  #readable!: Watch;
  #writable!: Watch;
  #isEnabled = false;
  #isListening = false;
  #isGone = false;

  constructor(plan: TapPlan, owner: PortOwner, pair: number) {
    this.#fd = plan.fds[pair];
    this.#isTap = plan.isTap;
    this.#isMultiQueue = plan.isMultiQueue;
    this.#owner = owner;
    this.#lost = plan.lost;
    this.#watch();
    const back = plan.back?.[pair];
    if (back !== undefined) {
      this.#back = owner.watch(back, "readable", () => {
        drainEventfd(back);
        this.#return();
      });
    }
  }

  #watch(): void {
    const owner = this.#owner;
    this.#readable = owner.watch(this.#fd, "readable", () => owner.readable());
    this.#readable.pause();
    this.#writable = owner.watch(this.#fd, "writable", () => {
      this.#writable.pause();
      owner.writable();
    });
    this.#writable.pause();
  }

  #unwatch(): void {
    this.#readable[Symbol.dispose]();
    this.#writable[Symbol.dispose]();
  }

  /** Uses its descriptor anew. */
  #return(): void {
    if (!this.#isGone) this.#unwatch();
    this.#isGone = false;
    this.#watch();
    this.enable(this.#isEnabled);
    this.listen(this.#isListening);
    this.#owner.writable();
  }

  /** The interface was deleted, or the socket's peer is gone: the descriptor says so for ever. */
  #lose(why: string): void {
    this.#isGone = true;
    this.#unwatch();
    this.#owner.notice({
      what: this.#isTap ? "The TAP is gone" : "The peer of the inherited socket is gone",
      why,
      remedy: this.#lost === undefined
        ? `Start vhostd again ${this.#isTap ? "when the interface is back" : "with another socket"}`
        : "It is joined again when it is back",
    });
    if (this.#lost !== undefined) signalEventfd(this.#lost);
    // A packet that waited for it is dropped.
    this.#owner.writable();
  }

  enable(isEnabled: boolean): void {
    this.#isEnabled = isEnabled;
    if (!this.#isMultiQueue || this.#isGone) return;
    try {
      attachTapQueue(this.#fd, isEnabled);
    } catch (error) {
      // It is so already.
      if (!(error instanceof LinuxError && error.errno === Errno.EINVAL)) throw error;
    }
  }

  send(packet: Parts): number {
    if (this.#isGone) return Drop.REFUSED;
    const vectors = this.#vectors;
    vectors.count = 0;
    // A chain has no more parts than a system call takes.
    packet.gather(vectors, this.#owner.base);
    for (;;) {
      if (writeVectors(this.#fd, vectors, CURRENT_POSITION) >= 0) return SENT;
      const code = errno();
      if (code === Errno.EAGAIN) {
        this.#writable.resume();
        return FULL;
      }
      if (code === Errno.EINTR) continue;
      if (code === Errno.EBADFD) this.#lose("Expected to send a packet, got EBADFD");
      return Drop.REFUSED;
    }
  }

  receive(window: ReceiveWindow): number {
    if (this.#isGone) return 0;
    // What is left then keeps the descriptor readable.
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const bytes = readList(this.#fd, window.address, window.listed);
      if (bytes > HEADER_BYTES) return bytes;
      if (bytes > 0) continue; // no frame behind the header
      // A socket's end looks like an empty packet, and comes after the last packet, again and again.
      if (bytes === 0 && (tries < MAX_TRIES - 1 || !hasHungUp(this.#fd))) continue;
      const code = bytes === 0 ? 0 : errno();
      if (code === Errno.EAGAIN) return 0;
      if (code === Errno.EINTR) continue;
      // A socket reports that a packet before did not reach its peer, which may come back.
      if (code === Errno.ECONNREFUSED || code === Errno.ECONNRESET) continue;
      if (code === Errno.EFAULT) { // the driver's memory is gone, and so is the packet
        this.#owner.dropped(Drop.REFUSED);
        continue;
      }
      this.#lose(`Expected packets from it, got ${code === 0 ? "its end" : errnoName(code)}`);
      return 0;
    }
    return 0;
  }

  listen(isListening: boolean): void {
    this.#isListening = isListening;
    if (this.#isGone) return;
    if (isListening) this.#readable.resume();
    else this.#readable.pause();
  }

  [Symbol.dispose](): void {
    this.#unwatch();
    this.#back?.[Symbol.dispose]();
  }
}

/** What the user gave. */
export interface TapOptions {
  readonly tap?: string;
  readonly tapFd?: string;
  readonly bridge?: string;
  readonly mtu?: number;
  readonly queuePairs: number;
}

/** The offloads of a TAP, and the flag of TUNSETOFFLOAD where one belongs to them. */
const OFFLOADS: Readonly<Partial<Record<Offload, number>>> = {
  CSUM: 0,
  GUEST_CSUM: TapOffload.CSUM,
  GUEST_TSO4: TapOffload.TSO4,
  GUEST_TSO6: TapOffload.TSO6,
  GUEST_ECN: TapOffload.TSO_ECN,
  GUEST_UFO: TapOffload.UFO,
  HOST_TSO4: 0,
  HOST_TSO6: 0,
  HOST_ECN: 0,
  HOST_UFO: 0,
};

/** Offloads of Linux 6.2 and later. */
const USO_OFFLOADS: Readonly<Partial<Record<Offload, number>>> = {
  HOST_USO: 0,
  GUEST_USO4: TapOffload.USO4,
  GUEST_USO6: TapOffload.USO6,
};

/**
 * Opens the TAP that the user named, or takes over what was inherited.
 *
 * @throws {OptionError} When it cannot be had.
 */
export function openTapNetwork(options: TapOptions, log: (message: string) => void): Network {
  const { tap, tapFd, bridge, queuePairs } = options;
  using resources = new DisposableStack();
  const fds: Fd[] = [];
  let name = tap;
  try {
    if (tap !== undefined) {
      for (let pair = 0; pair < queuePairs; pair++) {
        fds.push(resources.use(openTap(tap, HEADER_BYTES, queuePairs > 1)));
      }
    } else {
      const numbers = parseTapFds(tapFd!, queuePairs);
      for (const fd of numbers) {
        const adopted = adoptTap(fd, HEADER_BYTES);
        name ??= adopted;
        if (adopted === undefined) expectPacketSocket(fd);
        setCloseOnExec(fd);
        fds.push(resources.use(new Fd(fd)));
      }
    }
    const isTap = name !== undefined;
    const isMultiQueue = isTap && queuePairs > 1;
    // A driver may use fewer pairs; the kernel gives packets to attached queues only.
    if (isMultiQueue) { for (const { number } of fds) attachTapQueue(number, false); }
    const mtu = isTap ? configure(name!, tap !== undefined, options) : options.mtu ?? 1500;
    if (bridge !== undefined && !isTap) throw new OptionError("--bridge needs a TAP");
    const first = fds[0].number;
    const hasUso = !isTap ||
      setTapOffload(first, TapOffload.CSUM | TapOffload.USO4 | TapOffload.USO6);
    const flags = hasUso ? { ...OFFLOADS, ...USO_OFFLOADS } : OFFLOADS;
    if (isTap) setTapOffload(first, 0);
    let mask = 0, hasLink = true;
    // One that was inherited cannot be opened again.
    const returning = tap === undefined ? undefined : resources.use(
      new TapReturn(tap, fds, (fd) => {
        configure(tap, true, options);
        setTapOffload(fd, mask);
        if (!hasLink) setTapCarrier(fd, false);
      }, log),
    );
    const opened = resources.move();
    return {
      plan: {
        ...{ kind: "tap", fds: fds.map(({ number }) => number), isTap, isMultiQueue },
        lost: returning?.lost.number,
        back: returning?.back.map(({ number }) => number),
      },
      offloads: Object.keys(flags) as Offload[],
      mtu,
      onFeatures(features) {
        if (!isTap) return;
        mask = 0;
        for (const [offload, flag] of Object.entries(flags) as [Offload, number][]) {
          if (features[offload]) mask |= flag;
        }
        // The kernel takes none without the first.
        mask = (mask & TapOffload.CSUM) === 0 ? 0 : usable(mask);
        whileThere(() => setTapOffload(first, mask));
      },
      setLink: !isTap ? undefined : (isUp) => {
        hasLink = isUp;
        whileThere(() => setTapCarrier(first, isUp));
      },
      report: () => ({ port: isTap ? `tap ${name}` : "inherited socket", ...bridge && { bridge } }),
      [Symbol.asyncDispose]: () => Promise.resolve(opened.dispose()),
    };
  } catch (error) {
    if (!(error instanceof LinuxError || error instanceof TypeError)) throw error;
    throw new OptionError(explain(error, options), { cause: error });
  }
}

/** Calls a function that fails while the TAP is gone; a new one is set up when it is back. */
function whileThere(call: () => void): void {
  try {
    call();
  } catch (error) {
    if (!(error instanceof LinuxError && error.errno === Errno.EBADFD)) throw error;
  }
}

/** Linux takes both of the USO flags, or none; and ECN with TSO only. */
function usable(mask: number): number {
  const { USO4, USO6, TSO4, TSO6, TSO_ECN } = TapOffload;
  if ((mask & (USO4 | USO6)) !== (USO4 | USO6)) mask &= ~(USO4 | USO6);
  if ((mask & (TSO4 | TSO6)) === 0) mask &= ~TSO_ECN;
  return mask;
}

/** Sets the interface up; returns its MTU. */
function configure(name: string, isOurs: boolean, { bridge, mtu }: TapOptions): number {
  using tap = new NetworkInterface(name);
  if (mtu !== undefined && mtu !== tap.mtu) {
    change(`--mtu=${mtu}`, `ip link set ${name} mtu ${mtu}`, () => tap.mtu = mtu, {
      [Errno.EINVAL]: "a TAP takes 68 to 65521",
    });
  }
  if (bridge !== undefined && !isPort(name, bridge)) {
    using port = new NetworkInterface(bridge);
    if (port.index === undefined) {
      throw new OptionError(
        `--bridge=${bridge}: there is no such bridge; make it: ip link add ${bridge} type bridge ` +
          `&& ip link set ${bridge} up`,
      );
    }
    const command = `ip link set ${name} master ${bridge}`;
    change(`--bridge=${bridge}`, command, () => port.addPort(tap.index!), {
      [Errno.EOPNOTSUPP]: "that interface is no bridge",
    });
  }
  if (isOurs) change(`--tap=${name}`, `ip link set ${name} up`, () => tap.setUp(), {});
  return tap.mtu;
}

/** Whether an interface is a port of a bridge: to ask for it again needs privileges. */
function isPort(name: string, bridge: string): boolean {
  try {
    return Deno.readLinkSync(`/sys/class/net/${name}/master`).endsWith(`/${bridge}`);
  } catch {
    return false;
  }
}

/**
 * Changes a property of an interface.
 *
 * @param command What does the same as root.
 * @param reasons Why the kernel refuses it, by error.
 */
function change(
  flag: string,
  command: string,
  call: () => void,
  reasons: Readonly<Record<number, string>>,
): void {
  try {
    call();
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    const isForbidden = error.errno === Errno.EPERM || error.errno === Errno.EACCES;
    const why = isForbidden
      ? `not permitted; as root: ${command}`
      : reasons[error.errno] ?? error.message;
    throw new OptionError(`${flag}: ${why}`, { cause: error });
  }
}

/**
 * The descriptors of `--tap-fd`, one for each pair of queues.
 *
 * @throws {OptionError} When there are others.
 */
export function parseTapFds(text: string, count: number): number[] {
  const fds = text.split(",").map((word) => /^\d{1,6}$/.test(word) ? Number(word) : -1);
  if (fds.includes(-1) || fds.length !== count) {
    throw new OptionError(
      `--tap-fd takes one descriptor per pair (${count}), such as 3,4; got ${JSON.stringify(text)}`,
    );
  }
  if (new Set(fds).size < fds.length) {
    throw new OptionError(`--tap-fd takes a descriptor once, got ${JSON.stringify(text)}`);
  }
  return fds;
}

/** A socket that keeps packets apart takes the place of a TAP; its peer sees virtio-net headers. */
function expectPacketSocket(fd: number): void {
  if (!isPacketSocket(fd)) {
    throw new TypeError(
      "Expected a TAP, or a connected socket that keeps packets apart, got another descriptor",
    );
  }
  setNonblocking(fd, true);
}

function explain(error: Error, { tap, tapFd, queuePairs }: TapOptions): string {
  const what = tap === undefined ? `--tap-fd=${tapFd}` : `--tap=${tap}`;
  const code = error instanceof LinuxError ? error.errno : 0;
  const made = `ip tuntap add ${tap} mode tap${queuePairs > 1 ? " multi_queue" : ""}`;
  if (code === Errno.EPERM || code === Errno.EACCES) {
    return `${what}: not permitted. Run as root, or make it yours, as root: ` +
      `${made} user $USER && ip link set ${tap} up`;
  }
  if (code === Errno.EINVAL && tap !== undefined) {
    return `${what}: it is no TAP, or one with other properties; expected what ${made} makes`;
  }
  if (code === Errno.ENOENT) {
    return `${what}: the kernel has no TAPs: modprobe tun, as root; ${error.message}`;
  }
  if (code === Errno.EBUSY) {
    return `${what}: another program has it; end that, or take another TAP`;
  }
  return `${what}: ${error.message}`;
}
