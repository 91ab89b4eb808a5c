/**
 * One connection of a front-end: the vhost-user protocol, message by message.
 *
 * Requests are answered in order, one at a time. A request that is not
 * understood, not possible or not offered changes nothing, is recorded, and
 * gets an error reply where the protocol has one; only a broken byte stream
 * ends the connection.
 *
 * Source: QEMU, docs/interop/vhost-user.rst.
 *
 * @module
 */

import {
  bufferAt,
  closeAll,
  Fd,
  inspectSocket,
  isEventfd,
  LinuxError,
  readKernelFile,
  setNonblocking,
  UnixConnection,
} from "../../linux/mod.ts";
import { sealAgainstShrinking, StuckError } from "../../linux/quarantine.ts";
import { Signaller } from "../../linux/wait/signaller.ts";
import { type LostMemory, MAX_REGIONS } from "../../memory/mod.ts";
import {
  backendMessages,
  type FrontendMessage,
  frontendMessages,
  type Header,
  type MemoryRegion,
  type MessageSource,
  ProtocolError,
  type ProtocolFeature,
  protocolFeatureMask,
  protocolFeatureNames,
  receiveMessage,
  type VringAddress,
} from "../../vhost_user/mod.ts";
import {
  type AnyDevice,
  deviceStatus,
  hasFeature,
  nameFeatures,
  type TransportFeature,
  transportFeatures,
} from "../../virtio/mod.ts";
import { initialBase, MAX_QUEUE_SIZE, ringBytes } from "../../virtqueue/mod.ts";
import type { DeviceHost } from "../device_host.ts";
import { createInflightFile, InflightArea } from "./inflight_area.ts";
import type { KeptConfig } from "./kept_config.ts";
import type { BrokenEvent } from "../data_plane/messages.ts";
import { streamNotice } from "../notices.ts";
import type { Ring } from "../ring.ts";
import { SharingCheck } from "./sharing_check.ts";

/** A request that cannot be granted. */
class RequestError extends Error {
  override name = "RequestError";
}

/** SET_CONFIG, flags: the front-end restores the space of a migrated device. */
const CONFIG_MIGRATION = 1;

/** How long a request may take before the record says so. */
const PATIENCE_MS = 5000;

/** What the record calls the loss of guest memory. */
const MEMORY_RULE = "memory";

/** A connection of a front-end to a device. */
export class Session {
  readonly #host: DeviceHost;
  readonly #connection: UnixConnection;
  readonly #source: MessageSource<Fd>;
  readonly #rings: readonly Ring[];
  readonly #offeredProtocol: bigint;
  readonly #sharing: SharingCheck;
  #backChannel: UnixConnection | undefined;
  /** Where rings record what is in flight. */
  #inflight: InflightArea | undefined;
  /** Where what the driver writes to config space is kept for another back-end. */
  #keptConfig: KeptConfig | null = null;
  #features = 0n;
  #protocol = 0n;
  #status = 0;
  /**
   * SET_FEATURES was refused, and the front-end (QEMU) did not want to hear of it.
   * It believes otherwise, so rings do not start.
   */
  #isMisled = false;
  /** Config changed, and the front-end does not know it yet. */
  #configChanged = false;
  #announcing = false;
  /** The front-end read config space, or was told to. */
  #isConfigKnown = false;
  /** What is done now that changes rings or memory. */
  #last: Promise<unknown> = Promise.resolve();

  /** Takes over a connection; it is closed at the end of {@linkcode Session.run}. */
  constructor(host: DeviceHost, connection: UnixConnection) {
    this.#host = host;
    this.#connection = connection;
    const { quarantine } = host;
    this.#source = {
      peek: (into) => connection.peek(into),
      receive: (into, mostFds) => connection.receiveFrom(into, mostFds, quarantine),
      close: (fds) => quarantine.letGo(fds),
    };
    this.#sharing = new SharingCheck(host);
    this.#rings = host.queues;
    this.#offeredProtocol = protocolFeatureMask(
      "MQ",
      "REPLY_ACK",
      "BACKEND_REQ",
      "INFLIGHT_SHMFD",
      "RESET_DEVICE",
      "CONFIGURE_MEM_SLOTS",
      "STATUS",
      // QEMU strips it, with a warning, from devices whose config it makes itself.
      ...(host.config.layout.size > 0 ? ["CONFIG" as const] : []),
    );
  }

  /**
   * Serves the connection until the front-end is gone or {@linkcode Session.stop}
   * is called. Afterwards nothing is left of it: rings are stopped, memory is
   * unmapped, descriptors are closed.
   */
  async run(): Promise<void> {
    const { record } = this.#host;
    for (const ring of this.#rings) ring.clear();
    record.connected(frontendProcess(this.#connection));
    this.#host.onConfigChange = () => void this.#announceConfig();
    this.#host.onEvent = (event) => this.#onEvent(event);
    this.#host.memory.onLost = (lost) => void this.#memoryLost(lost);
    let reason = "the front-end closed the connection";
    try {
      while (await this.#serveOne());
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
      if (error instanceof ProtocolError) this.#host.notices.add(streamNotice(reason));
    } finally {
      this.#host.onConfigChange = undefined;
      await this.#patiently("the end", this.#exclusively(() => this.#cleanUp()));
      this.#host.memory.onLost = this.#host.onEvent = undefined;
      record.disconnected(reason);
    }
  }

  /** Ends the connection as if the front-end had. */
  stop(): void {
    this.#connection.shutdown();
  }

  /** Receives and answers one message; false at the end of the stream. */
  async #serveOne(): Promise<boolean> {
    const { isFull, stuck } = this.#host.quarantine;
    if (isFull) {
      throw new Error(`Expected a front-end that holds up nobody, got one that does: ${stuck}`);
    }
    const message = await receiveMessage(this.#source, (id) => frontendMessages.mostFds(id));
    if (message === undefined) return false;
    const { header, payload, fds, fdsLost } = message;
    this.#host.record.message();
    try {
      await this.#exclusively(() => this.#answer(header, payload, fdsLost ? null : fds));
    } finally {
      // What a handler keeps it has duplicated or released.
      await this.#unlessStuck(requestName(header.id), this.#host.quarantine.letGo(fds));
    }
    return true;
  }

  /** @param fds What came with the message; null where that was more than it may have. */
  async #answer(header: Header, payload: Uint8Array, fds: Fd[] | null): Promise<void> {
    let reply: Uint8Array | undefined;
    const outgoing: Fd[] = [];
    try {
      if (fds === null) {
        throw new RequestError(
          `Expected at most ${
            frontendMessages.mostFds(header.id)
          } file descriptors, got more, or more than this process has room for`,
        );
      }
      const message = frontendMessages.decode(header, payload, fds.length);
      reply = await this.#patiently(message.request, this.#handle(message, fds, outgoing));
      if (reply === undefined && header.needReply && this.#hasProtocol("REPLY_ACK")) {
        reply = frontendMessages.encodeAck(header.id, 0n);
      }
    } catch (error) {
      if (error instanceof ProtocolError && error.scope === "stream") throw error;
      const text = error instanceof Error ? error.message : String(error);
      this.#host.record.refused(requestName(header.id), text);
      if (requestName(header.id) === "SET_FEATURES") this.#isMisled = !header.needReply;
      reply = frontendMessages.encodeFailure(header, this.#protocol);
      if (reply === undefined && frontendMessages.nameOf(header.id) === undefined) {
        throw new ProtocolError(
          "stream",
          `Expected a request that is known, got ${header.id}, which may wait for an answer`,
        );
      }
    }
    try {
      const numbers = outgoing.map(({ number }) => number);
      if (reply !== undefined) await this.#connection.send(reply, numbers);
    } finally {
      closeAll(outgoing);
    }
  }

  /** Does something while nothing else changes rings and memory. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Waits for something that a front-end may hold up; where it does, that is recorded. */
  async #unlessStuck(what: string, work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (!(error instanceof StuckError)) throw error;
      this.#host.record.refused(what, error.message);
    }
  }

  #hasProtocol(name: ProtocolFeature): boolean {
    return (this.#protocol & protocolFeatureMask(name)) !== 0n;
  }

  /**
   * Carries out a request; returns its reply, if it has one of its own.
   *
   * @param fds What came with it
   * @param outgoing Takes what goes with the reply, and is closed then
   */
  async #handle(
    message: FrontendMessage,
    fds: Fd[],
    outgoing: Fd[],
  ): Promise<Uint8Array | undefined> {
    const host = this.#host;
    switch (message.request) {
      case "GET_FEATURES":
        return frontendMessages.encodeReply("GET_FEATURES", { value: host.offered });
      case "SET_FEATURES":
        await this.#setFeatures(message.value);
        return;
      case "GET_PROTOCOL_FEATURES":
        return frontendMessages.encodeReply("GET_PROTOCOL_FEATURES", {
          value: this.#offeredProtocol,
        });
      case "SET_PROTOCOL_FEATURES": {
        const extra = message.value & ~this.#offeredProtocol;
        if (extra !== 0n) {
          throw new RequestError(
            `Expected protocol features that are offered, got ${
              protocolFeatureNames(extra).join(", ")
            }`,
          );
        }
        this.#protocol = message.value;
        host.record.protocolFeatures(message.value);
        return;
      }
      case "SET_OWNER":
        return;
      case "RESET_OWNER":
        // Deprecated; the protocol recommends to disable the rings or ignore it.
        for (const ring of this.#rings) await this.#enable(ring, false);
        return;
      case "GET_QUEUE_NUM":
        return frontendMessages.encodeReply("GET_QUEUE_NUM", { value: BigInt(this.#rings.length) });
      case "GET_MAX_MEM_SLOTS":
        return frontendMessages.encodeReply("GET_MAX_MEM_SLOTS", { value: BigInt(MAX_REGIONS) });
      case "SET_MEM_TABLE":
        await this.#setMemoryTable(message.regions, fds);
        return;
      case "ADD_MEM_REG":
        await host.memory.prepare([fds[0].number]);
        host.memory.add(message.region, fds[0].number);
        await this.#tellMemory();
        await this.#startWaiting();
        return;
      case "REM_MEM_REG":
        await this.#changeMemory(() => host.memory.remove(message.region));
        return;
      case "SET_VRING_NUM":
        this.#setSize(this.#ring(message.index), message.num);
        return;
      case "SET_VRING_ADDR": {
        const ring = this.#ring(message.index);
        this.#locate(ring, message);
        await this.#rearrange(ring, { address: message });
        return;
      }
      case "SET_VRING_BASE": {
        const ring = this.#ring(message.index);
        this.#expectStopped(ring);
        ring.base = message.num;
        return;
      }
      case "GET_VRING_BASE": {
        const ring = this.#ring(message.index);
        await this.#stop(ring);
        ring.started = false;
        ring.kick?.close();
        ring.kick = undefined;
        return frontendMessages.encodeReply("GET_VRING_BASE", {
          index: message.index,
          num: ring.base ?? initialBase(this.#isPacked),
        });
      }
      case "SET_VRING_KICK": {
        const ring = this.#ring(message.index);
        const kick = message.noFd ? undefined : keptSignal(fds[0]);
        const old = ring.kick;
        try {
          await this.#rearrange(ring, { kick, started: true });
        } catch (error) {
          kick?.close();
          throw error;
        }
        old?.close();
        return;
      }
      case "SET_VRING_CALL":
      case "SET_VRING_ERR": {
        const ring = this.#ring(message.index);
        const which = message.request === "SET_VRING_CALL" ? "call" : "err";
        // What a front-end says first of a queue it says as soon as it connects. A
        // guest may be waiting, so the queue's thread starts while the rest comes.
        void ring.engine;
        const fd = message.noFd ? undefined : keptSignal(fds[0]);
        const old = ring[which];
        ring[which] = fd;
        if (ring.running) {
          await ring.engine.call({ kind: which, queue: message.index, fd: fd?.number ?? -1 });
        }
        old?.close();
        return;
      }
      case "SET_VRING_ENABLE":
        await this.#enable(this.#ring(message.index), message.num === 1);
        return;
      case "GET_CONFIG": {
        this.#expectProtocol("CONFIG");
        host.control.onConfigRead?.(message.offset, message.size);
        const data = host.config.read(message.offset, message.size);
        host.record.configUsed("configReads");
        this.#isConfigKnown = true;
        return frontendMessages.encodeReply("GET_CONFIG", { ...message, data });
      }
      case "SET_CONFIG":
        this.#expectProtocol("CONFIG");
        this.#setConfig(message.offset, message.data, message.flags === CONFIG_MIGRATION);
        host.record.configUsed("configWrites");
        return;
      case "SET_BACKEND_REQ_FD": {
        this.#expectProtocol("BACKEND_REQ");
        if (inspectSocket(fds[0].number) !== "connected") {
          throw new RequestError("Expected a connected socket, got one that listens");
        }
        const channel = new UnixConnection(kept(fds[0]));
        await this.#closeBackChannel();
        this.#backChannel = channel;
        if (this.#configChanged) void this.#announceConfig();
        return;
      }
      case "GET_INFLIGHT_FD": {
        const file = createInflightFile(message, this.#isPacked, this.#rings.length);
        outgoing.push(file.fd);
        return frontendMessages.encodeReply("GET_INFLIGHT_FD", file.description);
      }
      case "SET_INFLIGHT_FD": {
        for (const ring of this.#rings) this.#expectStopped(ring);
        const [fd] = fds;
        await sealAgainstShrinking(fd.number, host.quarantine);
        const area = new InflightArea(message, fd.number, this.#isPacked, this.#rings.length);
        const kept = area.keptConfig(this.#host.config.layout);
        // Another back-end may have left it, if this one had none yet.
        if (this.#inflight === undefined && kept?.isKept) this.#restoreConfig(kept);
        this.#dropInflight();
        this.#inflight = area;
        this.#keptConfig = kept;
        this.#keepConfig();
        return;
      }
      case "RESET_DEVICE":
        this.#expectProtocol("RESET_DEVICE");
        await this.#reset();
        return;
      case "SET_STATUS": {
        const status = Number(message.value & 0xffn);
        this.#status = status;
        host.record.status(status, "reported");
        return;
      }
      case "GET_STATUS":
        return frontendMessages.encodeReply("GET_STATUS", { value: BigInt(this.#status) });
      default:
        throw new RequestError(`${message.request} is not offered`);
    }
  }

  #expectProtocol(name: ProtocolFeature): void {
    if ((this.#offeredProtocol & protocolFeatureMask(name)) === 0n) {
      throw new RequestError(`The protocol feature ${name} is not offered`);
    }
  }

  #ring(index: number): Ring {
    const ring = this.#rings[index];
    if (ring === undefined) {
      throw new RequestError(`Expected a queue below ${this.#rings.length}, got ${index}`);
    }
    return ring;
  }

  #expectStopped(ring: Ring): void {
    if (ring.running) throw new RequestError(`Queue ${ring.index} runs; stop it first`);
  }

  // Negotiation

  async #setFeatures(features: bigint): Promise<void> {
    const names = (mask: bigint) =>
      nameFeatures(mask, this.#host.device.features).map(({ name }) => name).join(", ");
    const extra = features & ~this.#host.offered & ~this.#host.honoured;
    if (extra !== 0n) {
      throw new RequestError(`Expected features that are offered, got ${names(extra)}`);
    }
    const honoured = features & ~this.#host.offered;
    if (honoured !== 0n && features !== this.#features) {
      this.#host.notices.add({
        what: "features from an earlier start",
        why: `the guest goes on with ${names(honoured)}, not offered any more`,
        remedy: "what cannot be done is answered so",
      });
    }
    const changed = features !== this.#features;
    // The device first: where it throws, nothing has changed.
    this.#host.control.onFeatures?.(featuresByName(this.#host.device, features));
    this.#isMisled = false;
    this.#features = features;
    this.#host.record.acknowledged(features);
    await this.#host.tell({ kind: "features", bits: features });
    // Rings pick up how they were negotiated when they start.
    if (changed) await this.#restartAll();
    // vhost-user.rst, "Ring states": without the bit rings are enabled from here on, whatever
    // became of the protocol features. QEMU before 7.2 never acknowledges it.
    if (!this.#has("PROTOCOL_FEATURES")) {
      for (const ring of this.#rings) await this.#enable(ring, true);
    }
  }

  async #reset(): Promise<void> {
    await this.#stopAll(this.#rings);
    for (const ring of this.#rings) {
      ring.started = false;
      ring.enabled = false;
      ring.base = undefined;
    }
    this.#dropInflight();
    this.#status = 0;
    this.#features = 0n;
    this.#isMisled = false;
    this.#host.record.status(0, "reported");
    this.#host.config.reset();
    this.#host.control.onReset?.();
  }

  /** What was in flight is of no interest any more, or somebody else's; no ring may be running. */
  #dropInflight(): void {
    this.#keptConfig = null;
    this.#inflight?.[Symbol.dispose]();
    this.#inflight = undefined;
  }

  // Config space

  #setConfig(offset: number, data: Uint8Array, migration: boolean): void {
    const { config, control } = this.#host;
    const write = config.write(offset, data, {
      migration,
      check: (write) => control.onConfigWrite?.(write),
    });
    control.onConfigWritten?.(write);
    this.#keepConfig();
  }

  #keepConfig(): void {
    this.#keptConfig?.keep(this.#host.config.bytes);
  }

  /** Writes what the driver had written while another back-end served it. */
  #restoreConfig(kept: KeptConfig): void {
    for (const { offset, data } of kept.differences(this.#host.config.bytes)) {
      try {
        this.#setConfig(offset, data, true);
      } catch (error) {
        this.#host.record.refused("SET_INFLIGHT_FD", (error as Error).message);
      }
    }
    // Its front-end has read that, from the other back-end.
    this.#host.control.onConfigRead?.(0, this.#host.config.bytes.length);
  }

  /**
   * Sends CONFIG_CHANGE_MSG. QEMU drops it, or crashes, while no ring runs
   * (seen with gpio, input, sound and vsock), so it is kept until one does.
   */
  async #announceConfig(): Promise<void> {
    this.#configChanged = true;
    // One at a time: a front-end that reads none finds one for all when it does.
    if (this.#announcing) return;
    this.#announcing = true;
    try {
      while (
        this.#configChanged && this.#backChannel !== undefined &&
        this.#rings.some((ring) => ring.running)
      ) {
        this.#configChanged = false;
        // No acknowledgement is asked for: QEMU gives none while it waits for a reply itself.
        await this.#backChannel.send(backendMessages.encode({ request: "CONFIG_CHANGE_MSG" }));
        this.#host.record.configUsed("announcements");
      }
    } catch (error) {
      this.#host.record.refused("CONFIG_CHANGE_MSG", (error as Error).message);
    } finally {
      this.#announcing = false;
    }
  }

  async #closeBackChannel(): Promise<void> {
    const channel = this.#backChannel;
    this.#backChannel = undefined;
    if (channel === undefined) return;
    await this.#unlessStuck("SET_BACKEND_REQ_FD", channel.closeIn(this.#host.quarantine));
  }

  // Memory

  async #tellMemory(): Promise<void> {
    await this.#host.tell({ kind: "memory", regions: this.#host.memory.regions.regions });
  }

  async #setMemoryTable(regions: MemoryRegion[], fds: Fd[]): Promise<void> {
    const { memory } = this.#host;
    const numbers = fds.map((fd) => fd.number);
    await memory.prepare(numbers);
    // Everything is there before a ring is stopped: what is refused changes nothing.
    using plan = memory.plan(regions, numbers, true);
    await this.#changeMemory(() => memory.commit(plan));
  }

  /**
   * Changes memory that rings may be using: they are stopped and drained
   * before, and go on after at the same place in their rings.
   */
  async #changeMemory(change: () => void): Promise<void> {
    const running = this.#rings.filter((ring) => ring.running);
    await this.#stopAll(running);
    try {
      change();
    } finally {
      await this.#tellMemory();
      for (const ring of running) await this.#goOn(ring);
    }
    await this.#startWaiting();
  }

  /** Ends what could go on only with memory that is not the guest's any more. */
  async #memoryLost({ guestAddress, bytes }: LostMemory): Promise<void> {
    const message = `Expected guest memory 0x${guestAddress.toString(16)}+0x${
      bytes.toString(16)
    } to stay as long as it is given, got a file without some of its pages`;
    const { record, memory } = this.#host;
    record.refused(MEMORY_RULE, message);
    // At once, whatever is under way.
    const running = this.#rings.filter((ring) => ring.running);
    await Promise.allSettled(
      running.map(({ engine, index }) =>
        engine.call({ kind: "break", queue: index, rule: MEMORY_RULE, message })
      ),
    );
    await this.#exclusively(async () => {
      await this.#stopAll(this.#rings);
      await this.#tellMemory();
      memory.dropLost();
    });
  }

  // Rings

  /** Whether a transport feature was negotiated. */
  #has(feature: TransportFeature): boolean {
    return hasFeature(this.#features, transportFeatures[feature].bit);
  }

  get #isPacked(): boolean {
    return this.#has("RING_PACKED");
  }

  #setSize(ring: Ring, size: number): void {
    this.#expectStopped(ring);
    const most = Math.min(ring.maxSize, MAX_QUEUE_SIZE);
    const anySize = this.#isPacked; // virtio 1.3, 2.8.10.1
    if (size < 1 || size > most || !(anySize || (size & (size - 1)) === 0)) {
      throw new RequestError(
        `Expected a queue size${anySize ? "" : " that is a power of 2"} up to ${most}, got ${size}`,
      );
    }
    ring.size = size;
  }

  /** Where the parts of a ring are in the span. */
  #locate(
    ring: Ring,
    address: VringAddress,
  ): { descriptorIndex: number; availableIndex: number; usedIndex: number } {
    const { regions } = this.#host.memory;
    const bytes = ringBytes(ring.size, this.#isPacked);
    const find = (what: string, user: bigint, length: number) => {
      const index = regions.translateUser(Number(user), length);
      if (index < 0) {
        throw new RequestError(
          `Expected the ${what} of queue ${ring.index} inside guest memory, got 0x${
            user.toString(16)
          }`,
        );
      }
      return index;
    };
    return {
      descriptorIndex: find("descriptor table", address.descriptor, bytes.descriptor),
      availableIndex: find("available ring", address.available, bytes.available),
      usedIndex: find("used ring", address.used, bytes.used),
    };
  }

  /**
   * Changes something about a ring; one that runs is stopped before and started
   * after. Where it cannot start as changed, it goes on as it was.
   */
  async #rearrange(
    ring: Ring,
    changes: Partial<Pick<Ring, "address" | "kick" | "started">>,
  ): Promise<void> {
    const { address, kick, started, running } = ring;
    await this.#stop(ring);
    Object.assign(ring, changes);
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      Object.assign(ring, { address, kick, started });
      if (running) await this.#goOn(ring);
      throw error;
    }
  }

  async #restartAll(): Promise<void> {
    for (const ring of this.#rings.filter((ring) => ring.running)) {
      await this.#stop(ring);
      await this.#goOn(ring);
    }
    await this.#startWaiting();
  }

  /** Starts rings that were started and could not run, where they now can. */
  async #startWaiting(): Promise<void> {
    for (const ring of this.#rings.filter(({ started, running }) => started && !running)) {
      // Why it cannot yet was recorded when it stopped.
      await this.#startIfReady(ring).catch(() => {});
    }
  }

  /** Starts a ring that has everything it needs. */
  async #startIfReady(ring: Ring): Promise<void> {
    const { address, index } = ring;
    if (!ring.started || ring.running || address === undefined || ring.size === 0) return;
    if (this.#isMisled) throw new RequestError("Expected features that were not refused");
    const place = this.#locate(ring, address);
    this.#sharing.starting(ring, place.descriptorIndex);
    const inflight = this.#inflight?.place(index, ring.size, this.#isPacked) ?? null;
    const { engine } = ring;
    const hadFailed = engine.failure !== undefined;
    const { resumed, resubmitted } = await engine.call({
      kind: "start",
      queue: index,
      ring: {
        ...place,
        size: ring.size,
        base: ring.base ?? null,
        packed: this.#isPacked,
        eventIndex: this.#has("EVENT_IDX"),
        indirect: this.#has("INDIRECT_DESC"),
        inOrder: this.#has("IN_ORDER"),
      },
      inflight,
      kick: ring.kick?.number ?? -1,
      call: ring.call?.number ?? -1,
      err: ring.err?.number ?? -1,
      enabled: ring.enabled,
    }).catch(async (error) => {
      if (engine.failure !== undefined && !hadFailed) {
        this.#forsake(ring, engine.failure);
        await this.#withdrawMemory();
      }
      throw error;
    });
    ring.running = true;
    ring.broken = false;
    ring.starts++;
    ring.tracked = inflight !== null;
    ring.resumed = resumed;
    ring.resubmitted += resubmitted;
    if (!this.#hasProtocol("STATUS")) {
      const { ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK } = deviceStatus;
      this.#host.record.status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, "inferred");
    }
    // A front-end that connects again to a running guest reads nothing: it has config space as
    // another connection showed it, or another process.
    const isResumed = ring.resumed ||
      (ring.base ?? initialBase(this.#isPacked)) !== initialBase(this.#isPacked);
    if (!this.#isConfigKnown && isResumed && this.#hasProtocol("CONFIG")) {
      this.#isConfigKnown = this.#configChanged = true;
    }
    // Not awaited: who does not read its announcements gets its answers all the same.
    if (this.#configChanged) void this.#announceConfig();
  }

  /** Starts a ring again whose memory may be gone: then it stays stopped. */
  async #goOn(ring: Ring): Promise<void> {
    try {
      await this.#startIfReady(ring);
    } catch (error) {
      this.#host.record.broken(ring.index, "ring-address", null, (error as Error).message);
    }
  }

  /** Waits for something that may wait for the device, and records when that takes long. */
  async #patiently<T>(what: string, work: Promise<T>): Promise<T> {
    const late = setTimeout(() => {
      this.#host.record.slow(
        what,
        `Expected the device to be done within ${PATIENCE_MS / 1000} s, still waiting`,
      );
    }, PATIENCE_MS);
    try {
      return await work;
    } finally {
      clearTimeout(late);
    }
  }

  /** Stops a ring: see {@linkcode Session.#stopAll}. */
  async #stop(ring: Ring): Promise<void> {
    await this.#stopAll([ring]);
  }

  /**
   * Stops rings, once everything in flight is completed or has been given up.
   * Nothing of the device can touch guest memory for them afterwards.
   */
  async #stopAll(rings: readonly Ring[]): Promise<void> {
    const isLate = await Promise.all(rings.map((ring) => this.#halt(ring)));
    if (isLate.includes(true)) await this.#withdrawMemory();
  }

  /** Stops a ring; returns whether its device may still touch what it had of it. */
  async #halt(ring: Ring): Promise<boolean> {
    if (!ring.running) return false;
    const { engine } = ring;
    const { base, isLate } = await engine.stop(ring.index);
    ring.base = base ?? this.#usedIndex(ring);
    ring.running = false;
    if (!isLate) return false;
    // A reset starts it again.
    ring.started = false;
    if (engine.failure !== undefined) this.#forsake(ring, engine.failure);
    return true;
  }

  /** Where a ring goes on whose thread does not tell it. */
  #usedIndex(ring: Ring): number | undefined {
    if (ring.address === undefined || this.#isPacked) return ring.base;
    const { regions, handle } = this.#host.memory;
    const index = regions.translateUser(Number(ring.address.used), 4);
    return index < 0
      ? ring.base
      : new DataView(bufferAt(handle.base + index, 4)).getUint16(2, true);
  }

  /** Leaves a ring to a thread that does not answer: its descriptors stay open, as they may be used. */
  #forsake(ring: Ring, failure: Error): void {
    this.#host.record.broken(ring.index, "device", null, failure.message);
    if (ring.err !== undefined) {
      using signaller = new Signaller();
      signaller.signal(ring.err.number);
    }
    ring.kick = ring.call = ring.err = undefined;
  }

  /** Moves guest memory away from what was given up; rings that run are stopped for that. */
  async #withdrawMemory(): Promise<void> {
    const others = this.#rings.filter((ring) => ring.running);
    await Promise.all(others.map((ring) => this.#halt(ring)));
    // Its record a thread may touch too.
    if (this.#host.withdrawMemory() && this.#inflight !== undefined) {
      this.#inflight.move();
      this.#keptConfig = this.#inflight.keptConfig(this.#host.config.layout);
    }
    await this.#tellMemory();
    for (const ring of others) await this.#goOn(ring);
  }

  async #enable(ring: Ring, enabled: boolean): Promise<void> {
    ring.enabled = enabled;
    if (!ring.running) return;
    await ring.engine.call({ kind: "enable", queue: ring.index, enabled });
  }

  #onEvent(event: BrokenEvent): void {
    const { queue, rule, section = null, message, stack } = event;
    this.#host.record.broken(queue, rule, section, message, stack);
  }

  // The end

  async #cleanUp(): Promise<void> {
    const host = this.#host;
    this.#sharing[Symbol.dispose]();
    await this.#stopAll(this.#rings);
    for (const ring of this.#rings) await this.#release(ring);
    this.#dropInflight();
    await host.tell({ kind: "memory", regions: [] });
    host.memory.clear();
    await host.tell({ kind: "features", bits: 0n });
    host.config.reset();
    host.control.onReset?.();
    await this.#closeBackChannel();
    await this.#unlessStuck("the end", this.#connection.closeIn(host.quarantine));
  }

  /** Closes the descriptors of a ring that is stopped: its engine uses them no more. */
  async #release(ring: Ring): Promise<void> {
    await this.#enable(ring, false);
    for (const fd of [ring.kick, ring.call, ring.err]) fd?.close();
  }
}

/** Which of a device's own features a mask has. */
function featuresByName(device: AnyDevice, mask: bigint): Record<string, boolean> {
  const features = Object.entries(device.features ?? {}) as [string, { bit: number }][];
  return Object.fromEntries(features.map(([name, { bit }]) => [name, hasFeature(mask, bit)]));
}

/** A descriptor that outlives its message. */
function kept(fd: Fd): Fd {
  // A descriptor that blocks would stop its queue's thread.
  setNonblocking(fd.number, true);
  return new Fd(fd.release());
}

/** A descriptor for signals that outlives its message. */
function keptSignal(fd: Fd): Fd {
  if (!isEventfd(fd.number)) {
    throw new RequestError("Expected an eventfd, got another kind of file");
  }
  return kept(fd);
}

function requestName(id: number): string {
  return frontendMessages.nameOf(id) ?? `request ${id}`;
}

/** The process at the other end. */
function frontendProcess(connection: UnixConnection): { pid: number; command: string } | null {
  try {
    const pid = connection.peerPid();
    return { pid, command: readKernelFile(`/proc/${pid}/comm`).trim() };
  } catch (error) {
    if (error instanceof LinuxError) return null;
    throw error;
  }
}
