import { type Fd, UnixConnection } from "../linux/mod.ts";
import type { CryptoSession, Inflight, MemoryRegion, VringAddress } from "../vhost_user/mod.ts";
import { BackChannel, type BackChannelOptions } from "./back_channel.ts";
import { type ChannelOptions, connectUnix, ControlChannel } from "./control_channel.ts";
import { FrontendError } from "./frontend_error.ts";
import type { SharedMemory, SharedRegion } from "./shared_memory.ts";

/** A buffer for requests in flight, and its file. */
export interface InflightBuffer extends Inflight {
  /** The file; the caller's to close. */
  fd: Fd;
}

/**
 * A vhost-user front-end's connection: a method for each request, in the order in which the caller
 * likes. Nothing is checked against what was negotiated, so that a test can do what a front-end
 * must not.
 *
 * With REPLY_ACK every request waits until the back-end has carried it out; without, those that
 * have no reply return once they are sent. All throw {@linkcode FrontendError}: "refused" when the
 * back-end says that it failed, "timeout" or "closed" when it says nothing.
 *
 * File descriptors that are sent stay the caller's; those that come are the caller's to close.
 *
 * Source: QEMU 10.0 docs/interop/vhost-user.rst.
 *
 * @example
 * ```ts ignore
 * import { FrontendConnection } from "@vhostd/vhostd/frontend";
 *
 * await using connection = await FrontendConnection.connect("/tmp/device.sock");
 * console.log((await connection.getFeatures()).toString(16));
 * ```
 */
export class FrontendConnection extends ControlChannel {
  /**
   * Connects to a back-end that listens on a Unix socket.
   *
   * @throws {LinuxError} If no process listens there
   */
  static async connect(path: string, options: ChannelOptions = {}): Promise<FrontendConnection> {
    return new FrontendConnection(await connectUnix(path, options.connectMs), options);
  }

  async #value(request: "GET_FEATURES" | "GET_PROTOCOL_FEATURES" | "GET_STATUS"): Promise<bigint> {
    return (await this.ask<typeof request>({ request })).body.value;
  }

  async #count(request: "GET_QUEUE_NUM" | "GET_MAX_MEM_SLOTS"): Promise<number> {
    return Number((await this.ask<typeof request>({ request })).body.value);
  }

  /** The feature bits that the device offers, 64 of them. */
  getFeatures(): Promise<bigint> {
    return this.#value("GET_FEATURES");
  }

  /** Acknowledges feature bits. */
  setFeatures(value: bigint): Promise<void> {
    return this.tell({ request: "SET_FEATURES", value });
  }

  /** The protocol features that the back-end offers. */
  getProtocolFeatures(): Promise<bigint> {
    return this.#value("GET_PROTOCOL_FEATURES");
  }

  /** Acknowledges protocol features, which are in force from then on. */
  async setProtocolFeatures(value: bigint): Promise<void> {
    await this.tell({ request: "SET_PROTOCOL_FEATURES", value });
    this.protocolFeatures = value;
  }

  /** Makes this connection the device's owner. */
  setOwner(): Promise<void> {
    return this.tell({ request: "SET_OWNER" });
  }

  /** Deprecated in the protocol. */
  resetOwner(): Promise<void> {
    return this.tell({ request: "RESET_OWNER" });
  }

  /** How many virtqueues the device has at the most. */
  getQueueNum(): Promise<number> {
    return this.#count("GET_QUEUE_NUM");
  }

  /** Shares all regions of a memory, in place of the earlier ones; at most 8. */
  setMemTable(memory: SharedMemory): Promise<void> {
    const { regions } = memory;
    return this.tell(
      { request: "SET_MEM_TABLE", regions: regions.map(({ message }) => message) },
      regions.map(({ fd }) => fd.number),
    );
  }

  /** How many memory regions the back-end takes. */
  getMaxMemSlots(): Promise<number> {
    return this.#count("GET_MAX_MEM_SLOTS");
  }

  /** Gives one more region of memory. */
  addMemReg(region: SharedRegion): Promise<void> {
    return this.tell({ request: "ADD_MEM_REG", region: region.message }, [region.fd.number]);
  }

  /** Takes a region of memory away. It stays mapped here. */
  remMemReg(region: { readonly message: MemoryRegion }): Promise<void> {
    return this.tell({ request: "REM_MEM_REG", region: region.message });
  }

  /** Sets the size of a virtqueue, in descriptors. */
  setVringNum(index: number, num: number): Promise<void> {
    return this.tell({ request: "SET_VRING_NUM", index, num });
  }

  /** Places a virtqueue: user addresses, as {@linkcode DriverMemory.userAddress} gives them. */
  setVringAddr(address: VringAddress): Promise<void> {
    return this.tell({ request: "SET_VRING_ADDR", ...address });
  }

  /** Sets where a virtqueue resumes. */
  setVringBase(index: number, base: number): Promise<void> {
    return this.tell({ request: "SET_VRING_BASE", index, num: base });
  }

  /** Stops a virtqueue, and tells where it stopped once nothing is in flight. */
  async getVringBase(index: number): Promise<number> {
    const { body } = await this.ask({ request: "GET_VRING_BASE", index, num: 0 });
    return body.num;
  }

  /** Gives the eventfd that the driver signals, or none; starts the virtqueue. */
  setVringKick(index: number, fd?: number): Promise<void> {
    return this.#vringFd("SET_VRING_KICK", index, fd);
  }

  /** Gives the eventfd that the device signals, or none. */
  setVringCall(index: number, fd?: number): Promise<void> {
    return this.#vringFd("SET_VRING_CALL", index, fd);
  }

  /** Gives the eventfd that the device signals when the virtqueue is broken, or none. */
  setVringErr(index: number, fd?: number): Promise<void> {
    return this.#vringFd("SET_VRING_ERR", index, fd);
  }

  #vringFd(
    request: "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR",
    index: number,
    fd?: number,
  ): Promise<void> {
    return this.tell({ request, index, noFd: fd === undefined }, fd === undefined ? [] : [fd]);
  }

  /** Enables or disables a virtqueue. */
  setVringEnable(index: number, enable: boolean): Promise<void> {
    return this.tell({ request: "SET_VRING_ENABLE", index, num: enable ? 1 : 0 });
  }

  /**
   * Reads config space.
   *
   * Back-ends built on libvhost-user ignore the offset and always read from 0.
   *
   * @throws {FrontendError} With reason "refused", if the back-end says no
   */
  async getConfig(offset: number, size: number, flags = 0): Promise<Uint8Array> {
    const data = new Uint8Array(size);
    const { body } = await this.ask({ request: "GET_CONFIG", offset, size, flags, data });
    if (body.data.length !== size) {
      throw new FrontendError(
        "refused",
        `GET_CONFIG: Expected ${size} bytes from offset ${offset}, got ${body.data.length}`,
      );
    }
    return body.data;
  }

  /** Writes config space. */
  setConfig(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    return this.tell({ request: "SET_CONFIG", offset, size: data.length, flags, data });
  }

  /** Resets the device: its virtqueues are stopped, its memory stays. */
  resetDevice(): Promise<void> {
    return this.tell({ request: "RESET_DEVICE" });
  }

  /** Tells the driver's status: virtio 1.3, 2.1. */
  setStatus(value: number): Promise<void> {
    return this.tell({ request: "SET_STATUS", value: BigInt(value) });
  }

  /** The device's status: virtio 1.3, 2.1. */
  async getStatus(): Promise<number> {
    return Number(await this.#value("GET_STATUS"));
  }

  /**
   * Gives the back-end a channel of its own, and reads and acknowledges what it sends. The channel
   * is the caller's to close.
   */
  async openBackChannel(options: BackChannelOptions = {}): Promise<BackChannel> {
    const [ours, theirs] = UnixConnection.pair();
    try {
      await this.setBackendReqFd(theirs.fd);
    } catch (error) {
      ours[Symbol.dispose]();
      throw error;
    } finally {
      theirs[Symbol.dispose]();
    }
    return new BackChannel(ours, options);
  }

  /** Gives the back-end the socket for its own messages. */
  setBackendReqFd(fd: Fd): Promise<void> {
    return this.tell({ request: "SET_BACKEND_REQ_FD" }, [fd.number]);
  }

  /**
   * Asks for a buffer that records requests in flight.
   *
   * @throws {FrontendError} With reason "refused", if there is none
   */
  async getInflightFd(numQueues: number, queueSize: number): Promise<InflightBuffer> {
    const { body, fds: [fd] } = await this.ask({
      request: "GET_INFLIGHT_FD",
      mmapSize: 0n,
      mmapOffset: 0n,
      numQueues,
      queueSize,
    });
    if (fd === undefined) {
      throw new FrontendError("refused", "GET_INFLIGHT_FD: Expected a buffer, got none");
    }
    return { ...body, fd };
  }

  /** Shares the in-flight record, with its content. */
  setInflightFd(buffer: InflightBuffer): Promise<void> {
    const { fd, ...body } = buffer;
    return this.tell({ request: "SET_INFLIGHT_FD", ...body }, [fd.number]);
  }

  /** Asks for announcements on the network: the lower 6 bytes are the MAC address. */
  sendRarp(mac: bigint): Promise<void> {
    return this.tell({ request: "SEND_RARP", value: mac });
  }

  /** Tells the network's MTU, in bytes. */
  netSetMtu(bytes: number): Promise<void> {
    return this.tell({ request: "NET_SET_MTU", value: BigInt(bytes) });
  }

  /** Creates a crypto session; a negative answer is a failure. */
  async createCryptoSession(session: CryptoSession): Promise<bigint> {
    const { body } = await this.ask({
      request: "CREATE_CRYPTO_SESSION",
      ...session,
    });
    return body.sessionId;
  }

  /** Closes a crypto session. */
  closeCryptoSession(sessionId: bigint): Promise<void> {
    return this.tell({ request: "CLOSE_CRYPTO_SESSION", value: sessionId });
  }

  /** Gives the socket on which a GPU device speaks its own protocol. */
  gpuSetSocket(fd: Fd): Promise<void> {
    return this.tell({ request: "GPU_SET_SOCKET" }, [fd.number]);
  }
}
