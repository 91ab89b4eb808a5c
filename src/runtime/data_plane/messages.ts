/**
 * What the control plane and an engine say to each other. Plain values: they travel to a thread.
 *
 * @module
 */

import type { Region } from "../../memory/mod.ts";
import type { DeviceNotice } from "../../virtio/mod.ts";
import type { QueueSlot } from "../../virtio/queue_layout.ts";
import type { RingOptions } from "../../virtqueue/mod.ts";
import type { InflightPlace } from "../session/inflight_area.ts";

/** The most messages between the halves of a device that wait in one direction. */
export const MAX_MESSAGES = 256;

/** What an engine needs to begin. */
export interface EngineSetup {
  /** The queues of this engine. */
  queues: QueueSlot[];
  /** The values of the device's options. */
  options: Record<string, unknown>;
  /** What the control half handed over. */
  shared: unknown;
  /** The memory of config space. */
  config: SharedArrayBuffer;
  /** The memory of the counters of all queues. */
  counters: SharedArrayBuffer;
  /** The memory of the latencies of all queues. */
  latencies: SharedArrayBuffer;
  /** How long the thread may look for new requests before it sleeps, in microseconds; 0 for not at all. */
  pollUs: number;
  /** How many threads of the device poll: an i32. */
  polling: SharedArrayBuffer;
  /** How many messages of its data half the control half has not handled: an i32. */
  unheard: SharedArrayBuffer;
}

/** Starts a ring. Descriptors stay the control plane's; -1 stands for none. */
export interface StartCommand {
  kind: "start";
  queue: number;
  ring: RingOptions;
  /** Where chains in flight are recorded; null without an in-flight record. */
  inflight: InflightPlace | null;
  kick: number;
  call: number;
  err: number;
  enabled: boolean;
}

/** What the control plane asks of an engine. */
export type EngineCommand =
  | { kind: "memory"; regions: readonly Region[] }
  | { kind: "features"; bits: bigint }
  | StartCommand
  | { kind: "enable"; queue: number; enabled: boolean }
  | { kind: "call"; queue: number; fd: number }
  | { kind: "err"; queue: number; fd: number }
  /** Ends a queue because of its front-end. */
  | { kind: "break"; queue: number; rule: string; message: string }
  /** Is answered when everything in flight is completed. */
  | { kind: "stop"; queue: number }
  /** Asks the kernel to cancel the operations of this engine. */
  | { kind: "cancel" }
  /** Ends a queue whose device does not complete its chains. */
  | { kind: "giveUp"; queue: number; incident: number; message: string }
  /** Is answered when all requests that were taken before are completed. */
  | { kind: "fence" }
  /** The hooks of the data half of the same names; all rings are stopped for the first three. */
  | { kind: "reset" }
  | { kind: "save" }
  | { kind: "load"; state: unknown }
  | { kind: "report" }
  /** Samples 1 in `every` requests, and gives their spans to a ring, or to none. */
  | { kind: "trace"; ring: SharedArrayBuffer | null; every: number }
  | { kind: "message"; value: unknown }
  | { kind: "close" };

/** The answers to commands; others have none. */
export interface EngineAnswers {
  start: RingStart;
  /** The base: see GET_VRING_BASE. */
  stop: number;
  /** The base, or null when the ring had stopped before. */
  giveUp: number | null;
  save: unknown;
  report: Record<string, unknown> | undefined;
  message: unknown;
}

/** The answer to a command. */
export type AnswerTo<C extends EngineCommand> = C["kind"] extends keyof EngineAnswers
  ? EngineAnswers[C["kind"]]
  : void;

/** How a ring started. */
export interface RingStart {
  /** Whether a device had used it before. */
  resumed: boolean;
  /** How many chains of an in-flight record are taken again. */
  resubmitted: number;
}

/** What an engine tells the control plane on its own. */
export type EngineEvent =
  | BrokenEvent
  /** A notice of the device, and how often it came. */
  | { kind: "notice"; notice: DeviceNotice; count: number }
  /** A message for the device's control half. */
  | { kind: "message"; value: unknown }
  | LateEvent;

/** A queue broke. */
export interface BrokenEvent {
  kind: "broken";
  queue: number;
  /**
   * The rule that was broken, `device` when the device could not make sense of a chain, or
   * `memory` when guest memory was lost.
   */
  rule: string;
  /** The section of the standard that has the rule. */
  section?: string;
  message: string;
  /** The stack of an error that the device's code threw. */
  stack?: string;
}

/** Chains were given up that the device still has. */
export type LateEvent =
  | {
    kind: "late";
    incident: number;
    /** Index and length of each part that the device may still read. */
    readable: number[];
  }
  /** The device has returned all of them. */
  | { kind: "returned"; incident: number };
