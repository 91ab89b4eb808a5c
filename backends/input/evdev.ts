/**
 * Passing a real input device of the host through: what it is, its events, and
 * what the driver says to it.
 *
 * @module
 */

import {
  check,
  Errno,
  type Fd,
  ioctl,
  LinuxError,
  openFile,
  type Readiness,
  readNow,
  retry,
  writeNow,
} from "../../src/linux/mod.ts";
import { EV, SYN } from "./codes.ts";
import { evdevRequests, INPUT_EVENT_BYTES } from "./evdev_requests.ts";
import {
  endsGroup,
  EVENTS_AT_ONCE_MAX,
  type InputEvent,
  isAnnounced,
  SYN_REPORT,
} from "./events.ts";
import { ANSWER_BYTES_MAX, type AxisInfo, type InputModel } from "./profiles.ts";

/**
 * Asks a device something.
 *
 * @param request One of {@linkcode evdevRequests}
 * @param into Memory for the answer, of the request's size
 * @returns How many bytes were answered; 0 where the answer always fills the memory
 * @throws {LinuxError} ENOTTY when it is no input device
 */
export type EvdevQuery = (request: number, into: Uint8Array<ArrayBuffer>) => number;

function queryOf(fd: number): EvdevQuery {
  return (request, into) => retry("ioctl", () => ioctl(fd, request, into));
}

/**
 * The event types that are passed through. EV_REP is not: the host repeats
 * keys already, and a guest that is told of it would repeat the repetition.
 */
const FORWARDED = [EV.EV_KEY, EV.EV_REL, EV.EV_ABS, EV.EV_MSC, EV.EV_SW, EV.EV_LED, EV.EV_SND];

/**
 * The event types that a guest may write to the host's device. What else a
 * guest wrote would reach the host's programs as if it had been typed.
 */
const WRITABLE: readonly number[] = [EV.EV_LED, EV.EV_SND];

/** Bytes of a bitmap of all keys. */
const KEY_BITMAP_BYTES = 96;

/**
 * What a device is, by asking it.
 *
 * @throws {LinuxError} When it does not answer
 */
export function evdevModel(query: EvdevQuery): InputModel {
  const ids = new Uint16Array(4);
  query(evdevRequests.id, new Uint8Array(ids.buffer));
  const [bustype, vendor, product, version] = ids;
  const codes = new Map<number, ReadonlySet<number>>();
  for (const type of FORWARDED) {
    const set = bits(query, evdevRequests.codes(type, ANSWER_BYTES_MAX));
    if (set.size > 0) codes.set(type, set);
  }
  const axes = new Map<number, AxisInfo>();
  for (const axis of codes.get(EV.EV_ABS) ?? []) {
    const info = new Int32Array(6);
    query(evdevRequests.axis(axis), new Uint8Array(info.buffer));
    const [_value, min, max, fuzz, flat, res] = info;
    axes.set(axis, { min, max, fuzz, flat, res });
  }
  return {
    kind: "evdev",
    name: text(query, evdevRequests.name(ANSWER_BYTES_MAX)),
    serial: text(query, evdevRequests.uniq(ANSWER_BYTES_MAX)),
    ids: { bustype, vendor, product, version },
    properties: bits(query, evdevRequests.properties(ANSWER_BYTES_MAX)),
    codes,
    axes,
  };
}

function text(query: EvdevQuery, request: number): string {
  const bytes = new Uint8Array(ANSWER_BYTES_MAX);
  try {
    query(request, bytes);
  } catch (error) {
    if (error instanceof LinuxError && error.errno === Errno.ENOENT) return "";
    throw error;
  }
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? bytes.length : end));
}

function bits(query: EvdevQuery, request: number): Set<number> {
  const bytes = new Uint8Array(ANSWER_BYTES_MAX);
  query(request, bytes);
  return setBits(bytes);
}

function setBits(bytes: Uint8Array): Set<number> {
  const set = new Set<number>();
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    if ((bytes[bit >> 3] & (1 << (bit & 7))) !== 0) set.add(bit);
  }
  return set;
}

/** Decodes struct input_event as it is read from a device. */
function decodeInputEvent(data: DataView, offset: number): InputEvent {
  return {
    type: data.getUint16(offset + 16, true),
    code: data.getUint16(offset + 18, true),
    value: data.getInt32(offset + 20, true),
  };
}

/** Encodes events as they are written to a device. Linux sets the time. */
export function encodeInputEvents(events: readonly InputEvent[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(events.length * INPUT_EVENT_BYTES);
  const data = new DataView(bytes.buffer);
  for (const [i, { type, code, value }] of events.entries()) {
    data.setUint16(i * INPUT_EVENT_BYTES + 16, type, true);
    data.setUint16(i * INPUT_EVENT_BYTES + 18, code, true);
    data.setInt32(i * INPUT_EVENT_BYTES + 20, value, true);
  }
  return bytes;
}

/** What an {@linkcode EvdevStream} is made of. */
export interface EvdevStreamOptions {
  /** What the device announced; other events are left out. */
  model: InputModel;
  /** Takes whole groups, each with its end. */
  onGroup: (group: InputEvent[]) => void;
  /** The keys that are down now, asked for after events were lost. */
  keysDown: () => ReadonlySet<number>;
}

/**
 * Makes groups of events out of the bytes that a device gives.
 *
 * When the host itself lost events (SYN_DROPPED), what came until the next
 * SYN_REPORT is void; then the keys are compared with what was forwarded, so
 * that none stays down in the guest.
 */
export class EvdevStream {
  readonly #options: EvdevStreamOptions;
  readonly #event = new Uint8Array(INPUT_EVENT_BYTES);
  #eventBytes = 0;
  #group: InputEvent[] = [];
  #isVoid = false;
  readonly #down = new Set<number>();
  /** How often the host lost events. */
  lost = 0;

  /** Makes a stream that nothing came from yet. */
  constructor(options: EvdevStreamOptions) {
    this.#options = options;
  }

  /** Takes bytes as they were read; an event may be divided. */
  push(bytes: Uint8Array): void {
    const data = new DataView(this.#event.buffer);
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + INPUT_EVENT_BYTES - this.#eventBytes);
      this.#event.set(part, this.#eventBytes);
      this.#eventBytes += part.length;
      at += part.length;
      if (this.#eventBytes === INPUT_EVENT_BYTES) {
        this.#eventBytes = 0;
        this.#take(decodeInputEvent(data, 0));
      }
    }
  }

  /** The device is gone: releases all keys. */
  end(): void {
    this.#group = [];
    this.#setDown(new Set());
  }

  #take(event: InputEvent): void {
    if (event.type === EV.EV_SYN && event.code === SYN.SYN_DROPPED) return this.#lose();
    if (this.#isVoid) {
      if (!endsGroup(event)) return;
      this.#isVoid = false;
      return this.#setDown(this.#options.keysDown());
    }
    if (!isAnnounced(this.#options.model, event.type, event.code)) return;
    this.#group.push(event);
    if (endsGroup(event)) return this.#send();
    // A group without an end would grow for ever
    if (this.#group.length === EVENTS_AT_ONCE_MAX) this.#lose();
  }

  #lose(): void {
    this.#group = [];
    this.#isVoid = true;
    this.lost++;
  }

  #send(): void {
    const group = this.#group;
    this.#group = [];
    for (const { type, code, value } of group) {
      if (type !== EV.EV_KEY) continue;
      if (value === 0) this.#down.delete(code);
      else this.#down.add(code);
    }
    this.#options.onGroup(group);
  }

  #setDown(keys: ReadonlySet<number>): void {
    const press = (code: number, value: number) => ({ type: EV.EV_KEY, code, value });
    const released = [...this.#down].filter((code) => !keys.has(code));
    const pressed = [...keys].filter((code) => !this.#down.has(code));
    this.#group = [
      ...released.map((code) => press(code, 0)),
      ...pressed.map((code) => press(code, 1)),
    ];
    if (this.#group.length === 0) return;
    this.#group.push(SYN_REPORT);
    this.#send();
  }
}

/** How long it is waited before a grab until no key is down. */
const GRAB_WAIT_MS = 2000;
const GRAB_POLL_MS = 20;

/** How many events are read at once. */
const READ_EVENTS = 64;

/** What happens with an {@linkcode EvdevDevice}. */
export interface EvdevHandlers {
  /** Watches a descriptor. */
  watch: (fd: number, readiness: Readiness, callback: () => void) => Disposable;
  /** Takes whole groups, each with its end. */
  onGroup: (group: InputEvent[]) => void;
  /** The device is gone; why. */
  onGone: (reason: string) => void;
}

/** An input device of the host that is open. */
export class EvdevDevice implements Disposable {
  readonly #fd: Fd;
  /** What it is. */
  readonly model: InputModel;
  #watch: Disposable | undefined;
  #stream: EvdevStream | undefined;

  /** Takes over a non-blocking descriptor; use {@linkcode EvdevDevice.open}. */
  constructor(fd: Fd, model: InputModel) {
    this.#fd = fd;
    this.model = model;
  }

  /**
   * Opens a device, and with `grab` takes it for itself alone.
   *
   * @throws {Error} When it cannot be opened, is no input device, or is taken
   */
  static async open(path: string, { grab }: { grab: boolean }): Promise<EvdevDevice> {
    try {
      using opened = new DisposableStack();
      const fd = opened.use(openFile(path, { write: true, nonblocking: true }));
      const device = new EvdevDevice(fd, evdevModel(queryOf(fd.number)));
      if (grab) {
        await device.#released();
        // EBUSY when another program has it. Linux only looks whether there is a pointer.
        check(ioctl(fd.number, evdevRequests.grab, new Uint8Array(8)), "ioctl", "EVIOCGRAB");
      }
      opened.move();
      return device;
    } catch (cause) {
      if (!(cause instanceof LinuxError)) throw cause;
      const reason = cause.errno === Errno.ENOTTY
        ? "it is not an input device"
        : cause.errno === Errno.EBUSY
        ? "another program has grabbed it; try --no-grab"
        : cause.message;
      throw new Error(`Cannot pass ${path} through: ${reason}`, { cause });
    }
  }

  /**
   * Waits a while until no key is down: Enter, which started this program, may
   * be, and the host would never hear of its release.
   */
  async #released(): Promise<void> {
    for (let waited = 0; waited < GRAB_WAIT_MS; waited += GRAB_POLL_MS) {
      if (this.#keysDown().size === 0) return;
      await new Promise((resolve) => setTimeout(resolve, GRAB_POLL_MS));
    }
  }

  /** How often the host lost events. */
  get lost(): number {
    return this.#stream?.lost ?? 0;
  }

  /** Begins to read. */
  start({ watch, onGroup, onGone }: EvdevHandlers): void {
    const keysDown = () => this.#keysDown();
    const stream = this.#stream = new EvdevStream({ model: this.model, onGroup, keysDown });
    const buffer = new Uint8Array(READ_EVENTS * INPUT_EVENT_BYTES);
    this.#watch = watch(this.#fd.number, "readable", () => {
      let reason = "it has ended";
      try {
        const count = readNow(this.#fd.number, buffer);
        if (count < 0) return;
        if (count > 0) return stream.push(buffer.subarray(0, count));
      } catch (error) {
        reason = (error as Error).message;
      }
      this.#stop();
      stream.end();
      onGone(reason);
    });
  }

  /** Writes what the driver said, if it is for the device: LEDs and sounds. */
  write(event: InputEvent): void {
    const { type, code } = event;
    if (!this.#fd.isOpen || !WRITABLE.includes(type) || !isAnnounced(this.model, type, code)) {
      return;
    }
    try {
      writeNow(this.#fd.number, encodeInputEvents([event, SYN_REPORT]));
    } catch (error) {
      // A device that is gone says so when it is read
      if (!(error instanceof LinuxError)) throw error;
    }
  }

  #keysDown(): ReadonlySet<number> {
    const bytes = new Uint8Array(KEY_BITMAP_BYTES);
    queryOf(this.#fd.number)(evdevRequests.keysDown(KEY_BITMAP_BYTES), bytes);
    return setBits(bytes);
  }

  #stop(): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }

  /** Stops reading and gives the device back. */
  [Symbol.dispose](): void {
    this.#stop();
    this.#fd.close();
  }
}
