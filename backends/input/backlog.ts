/**
 * Events that wait until the driver supplies buffers.
 *
 * QEMU's vhost-user-input gives the queue four descriptors, so even a short
 * group can be longer than all the buffers that there are. Groups are therefore
 * delivered event by event as buffers come, in order; only groups of which
 * nothing was delivered yet are ever dropped, and whole (virtio 1.3, 5.8.6.2).
 *
 * @module
 */

import { EV } from "./codes.ts";
import { EVENTS_AT_ONCE_MAX, type InputEvent, SYN_REPORT } from "./events.ts";

/** How many events wait at the most; what is older is dropped. */
export const BACKLOG_EVENTS_MAX: number = EVENTS_AT_ONCE_MAX;

/** What became of the events, as numbers. */
export interface BacklogCounts {
  /** Events that were to be sent. */
  accepted: number;
  /** Events that the driver got. */
  delivered: number;
  /** Events that wait for buffers. */
  waiting: number;
  /** Events that were dropped because too many waited, or at a reset. */
  dropped: number;
  /** The groups that these were. */
  droppedGroups: number;
  /** Releases of keys that were in dropped groups and are sent all the same. */
  releases: number;
}

/** A queue of whole groups of events. */
export class Backlog {
  /** Called when events were added. */
  onEvents: () => void = () => {};
  readonly #limit: number;
  readonly #groups: InputEvent[][] = [];
  /** How many events of the first group are delivered. */
  #sent = 0;
  #waiting = 0;
  /** Keys whose release was dropped: a key must not stay down for that. */
  readonly #released = new Set<number>();
  readonly #counts = { accepted: 0, delivered: 0, dropped: 0, droppedGroups: 0, releases: 0 };

  /** Makes an empty backlog. */
  constructor(limit: number = BACKLOG_EVENTS_MAX) {
    this.#limit = limit;
  }

  /** Whether nothing waits. */
  get isEmpty(): boolean {
    return this.#waiting === 0 && this.#released.size === 0;
  }

  /** What became of the events up to now: a copy. */
  get counts(): BacklogCounts {
    return { ...this.#counts, waiting: this.#waiting };
  }

  /** Adds groups, each with its end, and drops the oldest if they are too many. */
  add(groups: readonly InputEvent[][]): void {
    for (const group of groups) {
      this.#groups.push(group);
      this.#waiting += group.length;
      this.#counts.accepted += group.length;
      // The first group stays once a part of it was delivered
      while (this.#waiting > this.#limit && this.#drop(this.#sent > 0 ? 1 : 0));
    }
    this.onEvents();
  }

  /** Takes the next event, which the driver gets. */
  next(): InputEvent | undefined {
    if (this.#sent === 0 && this.#released.size > 0) this.#release();
    const group = this.#groups[0];
    if (group === undefined) return undefined;
    const event = group[this.#sent++];
    if (this.#sent === group.length) {
      this.#groups.shift();
      this.#sent = 0;
    }
    this.#waiting--;
    this.#counts.delivered++;
    return event;
  }

  /** Forgets everything: the driver that it was meant for is gone. */
  clear(): void {
    while (this.#drop(0));
    this.#released.clear();
  }

  /** Drops a group; false if there is none at that place. */
  #drop(index: number): boolean {
    const [group] = this.#groups.splice(index, 1);
    if (group === undefined) return false;
    const sent = index === 0 ? this.#sent : 0;
    if (index === 0) this.#sent = 0;
    this.#waiting -= group.length - sent;
    this.#counts.dropped += group.length - sent;
    this.#counts.droppedGroups++;
    for (const { type, code, value } of group) {
      if (type === EV.EV_KEY && value === 0) this.#released.add(code);
    }
    return true;
  }

  /** Puts a group first that releases keys; Linux ignores it for those that are not down. */
  #release(): void {
    const group = [...this.#released].map((code) => ({ type: EV.EV_KEY, code, value: 0 }));
    this.#released.clear();
    this.#groups.unshift([...group, SYN_REPORT]);
    this.#waiting += group.length + 1;
    this.#counts.releases += group.length;
  }
}
