/**
 * What the person who runs a device is told of faults: the first of each kind on each queue or
 * message in a line, with the way out. Further ones are counted, and the count is told in intervals
 * and at the end: whoever causes them can cause a million a second.
 *
 * @module
 */

import type { DeviceNotice } from "../virtio/device.ts";

/** Something that went wrong. */
export interface Notice extends DeviceNotice {
  /** The stack of an error of the device's code. */
  readonly stack?: string;
}

/** Takes what is told: a line, and the stack of the error that it is about, if there is one. */
export type Tell = (line: string, stack?: string) => void;

/** The most kinds that are told apart; what is beyond counts as one more. */
export const MAX_NOTICE_KINDS = 64;

/** How often it is told at most how many more there were, in milliseconds. */
export const NOTICE_PERIOD_MS = 60_000;

/** What all kinds beyond the limit are called. */
const OTHERS = "faults of other kinds";

/** The notices of one device. */
export class Notices implements Disposable {
  readonly #tell: Tell;
  readonly #periodMs: number;
  /** How many more there were of each kind since that was told. */
  readonly #more = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param tell Takes each line. */
  constructor(tell: Tell, periodMs: number = NOTICE_PERIOD_MS) {
    this.#tell = tell;
    this.#periodMs = periodMs;
  }

  /**
   * Tells of a fault, or counts it.
   *
   * @param count How many of them there were.
   */
  add(notice: Notice, count = 1): void {
    const { why, remedy, stack } = notice;
    let { what } = notice;
    if (!this.#more.has(what) && this.#more.size >= MAX_NOTICE_KINDS) what = OTHERS;
    const more = this.#more.get(what);
    if (more === undefined) {
      this.#more.set(what, count - 1);
      const first = what === OTHERS ? `${OTHERS}: ${notice.what}` : what;
      return this.#tell(`${first}: ${why}${remedy === undefined ? "" : `; ${remedy}`}`, stack);
    }
    this.#more.set(what, more + count);
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => this.#tellMore(), this.#periodMs);
    Deno.unrefTimer(this.#timer);
  }

  #tellMore(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const [what, more] of this.#more) {
      if (more === 0) continue;
      this.#more.set(what, 0);
      this.#tell(`${what}: ${more} more since; the record has the latest`);
    }
  }

  /** Tells what was counted. */
  [Symbol.dispose](): void {
    this.#tellMore();
  }
}

/** How often a thread passes on how many more there were of a kind, in milliseconds. */
const PASSED_ON_MS = 1000;

/** The notices of a queue thread: the first of each kind goes on at once, of others the number. */
export class NoticeSender {
  readonly #send: (notice: DeviceNotice, count: number) => void;
  readonly #kinds = new Map<string, { count: number; sentAt: number }>();

  /** @param send Sends so many of a notice to {@linkcode Notices}. */
  constructor(send: (notice: DeviceNotice, count: number) => void) {
    this.#send = send;
  }

  /** Sends a notice, or counts it. */
  add(notice: DeviceNotice, now: number = performance.now()): void {
    const kind = this.#kinds.get(notice.what);
    if (kind === undefined) {
      if (this.#kinds.size >= MAX_NOTICE_KINDS) return;
      this.#kinds.set(notice.what, { count: 0, sentAt: now });
      return this.#send(notice, 1);
    }
    kind.count++;
    if (now - kind.sentAt < PASSED_ON_MS) return;
    this.#send(notice, kind.count);
    kind.count = 0;
    kind.sentAt = now;
  }
}

/** The arguments of QEMU that make guest memory one that a back-end can map. */
export const SHARED_MEMORY_ARGUMENTS =
  "-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem";

/** What to do where a front-end shares no memory. */
export const SHARE = `start QEMU with ${SHARED_MEMORY_ARGUMENTS} (SIZE is that of -m)`;

/** A queue that is broken; see `DeviceRecord.broken`. */
export function brokenNotice(
  queue: { index: number; name: string },
  rule: string,
  section: string | null,
  message: string,
  stack?: string,
): Notice {
  const where = `queue ${queue.index} (${queue.name}) is broken`;
  const reset = "a reset by the guest's driver mends it, such as a reboot";
  switch (rule) {
    case "device":
      return {
        what: `${where}, by the device`,
        why: message,
        remedy: `${reset}${stack === undefined ? "" : "; VHOSTD_TRACE=1 prints the stack"}`,
        stack,
      };
    case "memory":
      return { what: `${where}, guest memory is lost`, why: message, remedy: SHARE };
    default:
      return {
        what: `${where}, ${rule}${section === null ? "" : ` (${section})`}`,
        why: message,
        remedy: `the guest's driver broke the rule; ${reset}`,
      };
  }
}

/** What to do where a guest has features that are not offered. */
const RESTART =
  "its queues do not run; start the device with the options that it had before, or restart the guest";

/** A connection that ends because what comes on it is no vhost-user. */
export function streamNotice(reason: string): Notice {
  return {
    what: "A connection is ended",
    why: reason,
    remedy: "this socket is for a vhost-user front-end, such as QEMU; --control-path has another",
  };
}

/** Requests that fail where guest memory cannot be mapped, or is not there. */
const MEMORY_REQUESTS = ["SET_MEM_TABLE", "ADD_MEM_REG", "SET_VRING_ADDR", "memory"];

/** A message that was refused; see `DeviceRecord.refused`. */
export function refusedNotice(request: string, message: string): Notice {
  // Whoever sends it chooses the number.
  const name = /^request \d+$/.test(request) ? "an unknown request" : request;
  return {
    what: `${name} is refused`,
    why: name === request ? message : `${request}: ${message}`,
    remedy: MEMORY_REQUESTS.includes(request)
      ? SHARE
      : request === "SET_FEATURES"
      ? RESTART
      : undefined,
  };
}
