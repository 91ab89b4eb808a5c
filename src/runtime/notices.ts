/**
 * Notices of faults for the person who runs a device. The first of each kind is a line, with a
 * remedy. Further ones are counted and the count is reported at intervals and at the end, because a
 * guest can cause a million a second.
 *
 * @module
 */

import type { DeviceNotice } from "../virtio/device.ts";

/** A fault to report. */
export interface Notice extends DeviceNotice {
  /** The stack of an error of the device's code. */
  readonly stack?: string;
}

/** Takes a line, and the stack of the error that it is about, if any. */
export type Tell = (line: string, stack?: string) => void;

/** Number of kinds that are distinguished; all others count as one more. */
export const MAX_NOTICE_KINDS = 64;

/** Time between two reports of counts, in milliseconds. */
export const NOTICE_PERIOD_MS = 60_000;

/** The name of all kinds beyond the limit. */
const OTHERS = "faults of other kinds";

/** The notices of one device. */
export class Notices implements Disposable {
  readonly #tell: Tell;
  readonly #periodMs: number;
  /** The number of each kind since the last report. */
  readonly #more = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param tell Takes each line. */
  constructor(tell: Tell, periodMs: number = NOTICE_PERIOD_MS) {
    this.#tell = tell;
    this.#periodMs = periodMs;
  }

  /**
   * Reports a fault, or counts it.
   *
   * @param count Number of such faults.
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

  /** Reports the last counts. */
  [Symbol.dispose](): void {
    this.#tellMore();
  }
}

/** Time between two counts of a kind that a thread sends, in milliseconds. */
const SEND_PERIOD_MS = 1000;

/** The notices of a queue thread: it sends the first of each kind at once, later only counts. */
export class NoticeSender {
  readonly #send: (notice: DeviceNotice, count: number) => void;
  readonly #kinds = new Map<string, { count: number; sentAt: number }>();

  /** @param send Sends a notice and its count to {@linkcode Notices}. */
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
    if (now - kind.sentAt < SEND_PERIOD_MS) return;
    this.#send(notice, kind.count);
    kind.count = 0;
    kind.sentAt = now;
  }
}

/** The arguments of QEMU that let a back-end map guest memory. */
export const SHARED_MEMORY_ARGUMENTS =
  "-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem";

/** The remedy if a front-end shares no memory. */
export const SHARE = `start QEMU with ${SHARED_MEMORY_ARGUMENTS} (SIZE is that of -m)`;

/** The notice of a broken queue; see `DeviceRecord.broken`. */
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

/** The remedy if a guest has features that are not offered. */
const RESTART =
  "its queues do not run; start the device with the options that it had before, or restart the guest";

/** The notice of a connection that does not speak vhost-user. */
export function streamNotice(reason: string): Notice {
  return {
    what: "A connection is ended",
    why: reason,
    remedy: "this socket is for a vhost-user front-end, such as QEMU; --control-path has another",
  };
}

/** Requests that fail if guest memory cannot be mapped. */
const MEMORY_REQUESTS = ["SET_MEM_TABLE", "ADD_MEM_REG", "SET_VRING_ADDR", "memory"];

/** The notice of a refused message; see `DeviceRecord.refused`. */
export function refusedNotice(request: string, message: string): Notice {
  // The sender chooses the number, so all unknown requests are one kind
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
