/**
 * The contract of a network in TypeScript.
 *
 * @module
 */

import { expectNames, type Options, type OptionValues } from "../../../mod.ts";

/** Frames for the guest, each of which is copied at once; or none. */
export type Answer = Uint8Array | readonly Uint8Array[] | undefined | void;

/** The network's end of a guest's card. */
export interface NetworkPort<O extends Options = Options> {
  /** The values of the network's options. */
  readonly options: OptionValues<O>;
  /** The largest IP packet, in bytes: a frame has 14 more, or 18 with a VLAN tag. */
  readonly mtu: number;
  /**
   * Sends a frame to the guest, at any time. The frame is copied. Up to 256 frames wait for the
   * guest's buffers; a further one is dropped, and the record counts it.
   *
   * @param frame An Ethernet frame, from its destination address to its last byte of payload.
   * @returns Whether it is on its way.
   */
  send(frame: Uint8Array): boolean;
}

/** A network: see {@linkcode defineNetwork}. */
export interface NetworkDefinition<O extends Options = Options> {
  /** Options that `--handler-options=NAME=VALUE,…` sets. */
  readonly options?: O;
  /**
   * Begins, when a guest's driver first uses the card. Packets wait in the guest's memory until a
   * promise that it returns settles. Servers, sockets and timers belong here and not at the top of
   * the module: two threads load the module, and one of them only looks at its options.
   *
   * A network without this function has an event loop only while a promise of `packet` is pending,
   * and is faster for that.
   */
  open?(port: NetworkPort<O>): void | Promise<void>;
  /**
   * Takes a frame of the guest.
   *
   * @param frame An Ethernet frame, in place in guest memory until the function returns, or its
   * promise settles: copy what is needed later, since reading it then can end the process. Write
   * nothing to it. It may hold anything, and the guest can change it meanwhile.
   * @returns The answer, or a promise of it. Up to 256 promises may be pending; further packets wait
   * in the guest's memory. An error drops the packet: the record counts it, and a line on stderr
   * tells of the first.
   */
  packet(frame: Uint8Array<ArrayBuffer>, port: NetworkPort<O>): Answer | Promise<Answer>;
  /** Returns what it adds to the record: JSON. */
  report?(): Record<string, unknown>;
  /** Ends: the device closes. */
  close?(port: NetworkPort<O>): void;
}

/** The members of a definition; the compiler keeps the list complete. */
const MEMBERS: Readonly<Record<keyof NetworkDefinition, true>> = {
  options: true,
  open: true,
  packet: true,
  report: true,
  close: true,
};

/**
 * Defines a network, the default export of a module that `vhostd net --handler=FILE` takes. It runs
 * on the card's queue thread, where timers and Deno's own I/O work if it has `open`. One thread runs
 * it for one card, so variables of the module can hold its state.
 *
 * @throws {TypeError} When there is no `packet`.
 * @throws {Error} When there is anything else that a network does not have, such as a misspelt name.
 *
 * @example A network that returns each frame to its sender
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { defineNetwork } from "@vhostd/vhostd/net";
 *
 * const echo = defineNetwork({
 *   packet(frame) {
 *     const answer = frame.slice();
 *     answer.copyWithin(0, 6, 12); // to its sender
 *     answer.set(frame.subarray(0, 6), 6);
 *     return answer;
 *   },
 * });
 *
 * const port = { options: {}, mtu: 1500, send: () => true };
 * const frame = Uint8Array.of(2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5);
 * assertEquals(
 *   echo.packet(frame, port),
 *   Uint8Array.of(2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5),
 * );
 * ```
 */
export function defineNetwork<
  // deno-lint-ignore ban-types
  const O extends Options = {},
>(definition: NetworkDefinition<O>): NetworkDefinition<O> {
  if (typeof definition.packet !== "function") {
    throw new TypeError("Expected a network with a function packet(frame, port)");
  }
  expectNames("A network", Object.keys(definition), Object.keys(MEMBERS));
  return Object.freeze(definition);
}
