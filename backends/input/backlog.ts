/**
 * Events that wait until the driver supplies buffers.
 *
 * QEMU's vhost-user-input gives the queue four descriptors, so even a short
 * group can be longer than all the buffers that there are. Groups are therefore
 * delivered event by event as buffers come, in order; only groups of which
 * nothing was delivered yet are ever dropped, and whole (virtio 1.3, 5.8.6.2).
 *
 * Events that come while no driver listens are dropped: a password that is typed
 * before a guest has started, or while another one starts, must not reach the
 * next one. Only the keys and switches that are on are remembered, and reported
 * to the driver when it begins.
 *
 * @module
 */

import { EV } from "./codes.ts";
import { EVENTS_AT_ONCE_MAX, type InputEvent, SYN_REPORT } from "./events.ts";

/** The most events that wait; older ones are dropped. */
const BACKLOG_EVENTS_MAX = EVENTS_AT_ONCE_MAX;

/** What became of the events, as numbers. */
export interface BacklogCounts {
  /** Events that were to be sent. */
  accepted: number;
  /** Events that the driver got. */
  delivered: number;
  /** Events that wait for buffers. */
  waiting: number;
  /** Events that were dropped because no driver listened, or because too many waited. */
  dropped: number;
  /** The groups that these were. */
  droppedGroups: number;
  /** Events that say which keys and switches are on after others were dropped. */
  restored: number;
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
  #isListening = false;
  /** Keys and switches that are on where the queue begins, and as the driver knows it. */
  readonly #on = new Set<number>();
  readonly #told = new Set<number>();
  /** The two may differ. */
  #isStale = false;
  /** The driver may know less than it was told: it may be another one. */
  #isNew = true;
  #onDrained: (() => void)[] = [];
  readonly #counts = { accepted: 0, delivered: 0, dropped: 0, droppedGroups: 0, restored: 0 };

  /** Makes an empty backlog; no driver listens. */
  constructor(limit: number = BACKLOG_EVENTS_MAX) {
    this.#limit = limit;
  }

  /** Whether nothing is to be delivered. */
  get isEmpty(): boolean {
    this.#restore();
    return this.#waiting === 0;
  }

  /** Whether a driver runs, for which added events are kept. */
  get isListening(): boolean {
    return this.#isListening;
  }

  /** What became of the events up to now: a copy. */
  get counts(): BacklogCounts {
    return { ...this.#counts, waiting: this.#waiting };
  }

  /** A driver listens, the same as before or another one. */
  begin(): void {
    if (this.#isListening) return;
    this.#isListening = true;
    this.#isStale = true;
    this.#tellDrained();
  }

  /** Drops pending events: no driver listens any more. */
  end(): void {
    this.#isListening = false;
    this.#isNew = true;
    // A group that has begun ends, so that it does not flow into the next one.
    const isOpen = this.#sent > 0;
    while (this.#drop(0));
    if (isOpen) this.#putFirst([SYN_REPORT]);
  }

  /** Forgets the driver's state and pending events: the next driver starts over. */
  reset(): void {
    this.end();
    while (this.#drop(0));
    this.#told.clear();
    this.#isStale = false;
  }

  /** Adds groups, each with its end, and drops the oldest if they are too many. */
  add(groups: readonly InputEvent[][]): void {
    for (const group of groups) {
      this.#groups.push(group);
      this.#waiting += group.length;
      this.#counts.accepted += group.length;
      if (!this.#isListening) this.#drop(this.#groups.length - 1);
      // The first group stays once a part of it was delivered
      while (this.#waiting > this.#limit && this.#drop(this.#sent > 0 ? 1 : 0));
    }
    this.onEvents();
  }

  /** Resolves when a driver listens and nothing waits for it. */
  drained(): Promise<void> {
    return new Promise((resolve) => {
      this.#onDrained.push(resolve);
      this.#tellDrained();
    });
  }

  #tellDrained(): void {
    if (!this.#isListening || this.#waiting > 0) return;
    for (const resolve of this.#onDrained.splice(0)) resolve();
  }

  /** Takes the next event, which the driver gets. */
  next(): InputEvent | undefined {
    this.#restore();
    const group = this.#groups[0];
    if (group === undefined) return undefined;
    if (this.#sent === 0) this.#note(group, this.#on);
    const event = group[this.#sent++];
    this.#note([event], this.#told);
    this.#waiting--;
    this.#counts.delivered++;
    if (this.#sent === group.length) {
      this.#groups.shift();
      this.#sent = 0;
      this.#tellDrained();
    }
    return event;
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
    if (sent === 0) this.#note(group, this.#on);
    this.#isStale = true;
    return true;
  }

  /** Puts a group first that tells the driver which keys and switches are on. */
  #restore(): void {
    if (!this.#isStale || !this.#isListening || this.#sent > 0) return;
    this.#isStale = false;
    const known = this.#isNew ? [] : [...this.#told];
    this.#isNew = false;
    const group = [
      ...[...this.#told].filter((key) => !this.#on.has(key)).map((key) => eventOf(key, 0)),
      ...[...this.#on].filter((key) => !known.includes(key)).map((key) => eventOf(key, 1)),
    ];
    if (group.length === 0) return;
    this.#counts.restored += group.length;
    this.#putFirst([...group, SYN_REPORT]);
  }

  #putFirst(group: InputEvent[]): void {
    this.#groups.unshift(group);
    this.#waiting += group.length;
    this.#counts.accepted += group.length;
  }

  /** Notes which keys and switches are on after some events. */
  #note(events: readonly InputEvent[], on: Set<number>): void {
    for (const { type, code, value } of events) {
      if (type !== EV.EV_KEY && type !== EV.EV_SW) continue;
      const key = type << 16 | code;
      if (value === 0) on.delete(key);
      else on.add(key);
    }
  }
}

/** The event that turns a key or a switch on or off. */
function eventOf(key: number, value: number): InputEvent {
  return { type: key >> 16, code: key & 0xffff, value };
}
