/**
 * Ports: where the packets of a network device come from and go to.
 *
 * @module
 */

import type { DeviceNotice, Parts, Readiness, Watch } from "../../mod.ts";
import type { PacketHeader } from "./header.ts";
import type { Offload } from "./packet.ts";
import type { ReceiveWindow } from "./receive_window.ts";

/**
 * The port of one queue pair. It is made on the thread that runs the pair, when the driver first
 * uses it, and stays for as long as that thread. All methods return at once.
 */
export interface Port extends Disposable {
  /** `send` may return promises. */
  readonly isAsync?: boolean;
  /**
   * Sends a packet: {@linkcode HEADER_BYTES} of header, then a frame. The packet is in guest memory,
   * where the guest can change it at any time. It is valid until this returns; a port that needs it
   * longer copies it.
   *
   * @param header The header as it was checked.
   * @returns {@linkcode SENT}, {@linkcode FULL}, or why it was dropped: a value of {@linkcode Drop}.
   * With a promise of one of these, except FULL, the packet stays valid until it settles.
   */
  send(packet: Parts, header: PacketHeader): number | Promise<number>;
  /** Called after each batch of packets. */
  flush?(): void;
  /**
   * Moves the next packet into guest memory, header included: by a vectored read
   * ({@linkcode ReceiveWindow.address}), or by copies ({@linkcode ReceiveWindow.write}).
   *
   * @returns The size of the packet in bytes; 0 when there is none.
   */
  receive(window: ReceiveWindow): number;
  /**
   * The driver enabled the pair or disabled it: a medium that divides its packets among pairs
   * leaves out those that are disabled. At the start a port is disabled.
   */
  enable?(isEnabled: boolean): void;
  /** Begins or ends the calls of {@linkcode PortOwner.readable}; at the start there are none. */
  listen(isListening: boolean): void;
  /** Returns what it adds to the record. */
  report?(): Record<string, unknown> | undefined;
}

/** What a port is given. */
export interface PortOwner {
  /** Says that there are packets to receive; may be called again while there are. */
  readable(): void;
  /** Says that there is room after {@linkcode FULL}. */
  writable(): void;
  /** Counts a packet to the driver that the port dropped, by a value of {@linkcode Drop}. */
  dropped(reason: number): void;
  /**
   * Receives the next packet now, without notifying the driver: `flushReceived` follows.
   *
   * @returns Whether it was received; it is not while the driver has given no buffers.
   */
  receiveOne(): boolean;
  /** Notifies the driver of what was received. */
  flushReceived(): void;
  /** The address of index 0 of the memory of the packet that is sent. */
  readonly base: number;
  /** The features that the driver acknowledged, live. */
  readonly features: Readonly<Record<Offload, boolean>>;
  /** The largest IP packet without offloads, in bytes. */
  readonly mtu: number;
  /** Tells the person who runs the device of a fault. */
  notice(notice: DeviceNotice): void;
  /** Calls `callback` whenever a descriptor is ready, on the thread of the pair. */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /** Runs the event loop of the pair's thread while a promise is pending. */
  keep<T>(promise: Promise<T>): Promise<T>;
}

/** A TAP that the control half opened; plain values, for the threads. */
export interface TapPlan {
  readonly kind: "tap";
  /** The descriptor of each pair's queue. */
  readonly fds: readonly number[];
  /** They are TAPs, and not sockets in their place. */
  readonly isTap: boolean;
  /** Its queues can be detached. */
  readonly isMultiQueue: boolean;
  /** The eventfd by which a port says that its TAP is gone; undefined when it cannot come back. */
  readonly lost?: number;
  /** The eventfd of each pair by which its port learns that its descriptor is a new TAP's. */
  readonly back?: readonly number[];
}

/** A port of a switch; plain values, for the thread. */
export interface SwitchPlan {
  readonly kind: "switch";
  /** Its number in the switch. */
  readonly number: number;
  /** It reaches no other isolated port. */
  readonly isIsolated: boolean;
  /** The only address that it may use, as three little-endian words; undefined for any. */
  readonly mac?: readonly [number, number, number];
}

/** A network of the user's; plain values, for the threads. */
export interface HandlerPlan {
  readonly kind: "handler";
  /** The URL of the module. */
  readonly module: string;
  /** The values of its options. */
  readonly options: Readonly<Record<string, unknown>>;
}

/** A stream socket that comes and goes; plain values, for the threads. */
export interface StreamPlan {
  readonly kind: "stream";
  /** The descriptor by which connections come: see `StreamPort`. */
  readonly link: number;
}

/** A kind of port as the control half opened it; plain values, for the threads. */
export type PortPlan =
  | TapPlan
  | HandlerPlan
  | StreamPlan
  | SwitchPlan
  | { readonly kind: "null" }
  | { readonly kind: "source"; readonly frameBytes: number };

/** The control half of a device's ports. */
export interface Network extends AsyncDisposable {
  /** What the threads make the ports from. */
  readonly plan: PortPlan;
  /** The offloads that the ports have: others are not offered. */
  readonly offloads: readonly Offload[];
  /** The largest IP packet without offloads, in bytes. */
  readonly mtu: number;
  /** Takes the features that the driver acknowledged, before rings start. */
  onFeatures?(features: Readonly<Record<Offload, boolean>>): void;
  /** Tells the medium whether its cable is plugged in. */
  setLink?(isUp: boolean): void;
  /** Returns what it adds to the record. */
  report(): Record<string, unknown>;
}
