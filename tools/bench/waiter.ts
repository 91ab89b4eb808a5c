/** What a load does while nothing has come back. */
import type { DriverRing } from "../../src/frontend/mod.ts";
import { Epoll, EPOLLET, EPOLLIN } from "../../src/linux/wait/epoll.ts";
import { type LoadControl, phases } from "./load_state.ts";
import { ToolError } from "../lib/tool_error.ts";

/** How often a sleeping load looks whether it was told to end, in milliseconds. */
const LOOK_MS = 500;

/** Something to do until a request comes back. */
export interface Waiter extends Disposable {
  /** Called before the first request. */
  begin(): void;
  /** Waits until there may be something to poll. */
  wait(): void;
}

/** Sleeps until the device notifies, as a driver in a guest does. */
export class SleepingWaiter implements Waiter {
  readonly #epoll = new Epoll();

  constructor(readonly ring: DriverRing, callFd: number, readonly control: LoadControl) {
    // Edges: each notification ends a wait, without a call to take it back.
    this.#epoll.add(callFd, EPOLLIN | EPOLLET, 0);
  }

  begin(): void {}

  wait(): void {
    if (!this.ring.arm() && this.#epoll.wait(LOOK_MS) === 0) this.#expectNotMissed();
  }

  /** After a long sleep: either nothing came back, or its notification is on the way. */
  #expectNotMissed(): void {
    expectNoAbort(this.control);
    if (this.ring.arm() && this.#epoll.wait(LOOK_MS) === 0) {
      throw new ToolError("Expected a notification of a request that came back, got none");
    }
  }

  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
  }
}

/** Never sleeps, and tells the device that it need not notify. */
export class PollingWaiter implements Waiter {
  #turns = 0;

  constructor(readonly ring: DriverRing, readonly control: LoadControl) {}

  begin(): void {
    this.ring.disarm();
  }

  wait(): void {
    if ((++this.#turns & 0xfff) !== 0) return;
    this.ring.disarm();
    expectNoAbort(this.control);
  }

  [Symbol.dispose](): void {}
}

function expectNoAbort({ phase }: LoadControl): void {
  if (phase === phases.ABORT) throw new ToolError("Expected requests back, got none");
}
