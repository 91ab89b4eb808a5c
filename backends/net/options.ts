/**
 * The command line flags of the network device.
 *
 * @module
 */

import type { Options } from "../../mod.ts";
import { captureOptions } from "./capture/recorder.ts";
import { impairmentOptions } from "./impairment/impairment.ts";
import { MAX_FRAME_BYTES, MIN_FRAME_BYTES } from "./packet.ts";

/** The options of the network device. */
export const netOptions = {
  tap: {
    type: "text",
    placeholder: "NAME",
    about: "Join a TAP of the host, which is made if there is none, and set it up",
  },
  tapFd: {
    type: "text",
    placeholder: "FD[,FD]",
    about: "Use an inherited TAP, or a connected socket that keeps packets apart, one descriptor " +
      "per pair of queues",
  },
  bridge: {
    type: "text",
    placeholder: "NAME",
    about:
      "Make the TAP a port of a bridge of the host; one that is a port already stays where it is",
  },
  handler: {
    type: "text",
    placeholder: "FILE",
    about: "Pass packets to a network in TypeScript: a module with defineNetwork({ … })",
  },
  handlerOptions: {
    type: "text",
    placeholder: "NAME=VALUE,…",
    about: "Set options of that network; ,, is a comma in a value",
    needs: "handler",
  },
  user: {
    type: "flag",
    about: "Reach what this user reaches, without privileges, through passt",
  },
  forward: {
    type: "text",
    placeholder: "PORT:GUESTPORT,…",
    about: "Forward ports of this host to the guest: TCP ports of 127.0.0.1, unless udp: and " +
      "ADDRESS: come before",
    needs: "user",
  },
  stream: {
    type: "text",
    placeholder: "PATH|HOST:PORT",
    about: "Connect to a socket with the protocol of QEMU's -netdev stream",
  },
  streamListen: {
    type: "text",
    placeholder: "PATH|HOST:PORT",
    about: "Listen on a socket with the protocol of QEMU's -netdev stream",
  },
  null: { type: "flag", about: "Take every packet and give none, for measuring" },
  source: {
    type: "number",
    unit: "bytes",
    placeholder: "BYTES",
    least: MIN_FRAME_BYTES,
    most: MAX_FRAME_BYTES,
    about: "Give frames of this size without end and take every packet, for measuring",
  },
  queuePairs: {
    type: "number",
    placeholder: "N",
    least: 1,
    most: 16,
    default: 1,
    about: "Offer N pairs of queues",
  },
  mtu: {
    type: "number",
    placeholder: "BYTES",
    least: 68,
    most: 65_535,
    about: "The largest IP packet; by default the TAP's own, or 1500",
  },
  ...captureOptions,
  ...impairmentOptions,
} as const satisfies Options;
