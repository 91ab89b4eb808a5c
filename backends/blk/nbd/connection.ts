/**
 * A connection to an NBD server, as the queue thread has it.
 *
 * @module
 */

import {
  duplicateFd,
  Errno,
  type Fd,
  ioctl,
  pinnedBuffer,
  type Watch,
} from "../../../src/linux/mod.ts";
import type { StoreContext } from "../module/define_store.ts";
import { type Export, exportOf } from "./connect.ts";
import {
  DIRECTION_WRITE,
  libnbd,
  nbdError,
  type NbdHandle,
  NO_CALLBACK,
  NO_CALLBACK_STRUCT,
} from "./libnbd.ts";

/** ioctl: the number of bytes that can be read. */
const FIONREAD = 0x541b;

/** The bytes of a simple reply without data. */
const REPLY_BYTES = 16;

/** What a command does. */
export const READ = 0, WRITE = 1, FLUSH = 2, TRIM = 3, ZERO = 4;

/** A command, in flight or about to be. */
export class Command {
  kind = READ;
  /** The connection that it was sent by, until its reply. */
  connection: Connection | undefined;
  /** Its number at the connection. */
  cookie = 0;
  /** Where its data is in memory. */
  address = 0;
  bytes = 0;
  /** Where in the export. */
  offset = 0;
}

/** Commands are found by their cookie in a table of this many places. */
const PLACES = 1024;

const available = new Int32Array(pinnedBuffer(4), 0, 1);
const words = new Uint32Array(pinnedBuffer(8), 0, 2);
const word = new BigUint64Array(words.buffer, 0, 1);

/** A number below 2^53 as libnbd takes it. */
function u64(value: number): bigint {
  words[0] = value;
  words[1] = value / 2 ** 32;
  return word[0];
}

/** What a connection tells. */
export interface ConnectionEvents {
  /** A command's reply has come: 0 or an errno. */
  completed(command: Command, errno: number): void;
  /** Several were told. */
  batchEnded(): void;
  /** It is lost, and closed; commands without a reply get none. */
  lost(connection: Connection, why: string): void;
  /** The command of a connection that has a cookie. */
  find(connection: Connection, cookie: number): Command;
}

/** A connection that is open. */
export class Connection {
  /** The place of its handle. */
  readonly place: number;
  /** Later ones have larger numbers; the first is 1. */
  readonly number: number;
  readonly facts: Export;
  /** The number of commands without a reply. */
  inFlight = 0;
  readonly #handle: NbdHandle;
  readonly #events: ConnectionEvents;
  /** libnbd closes its own descriptor when it likes, this one is watched. */
  readonly #fd: Fd;
  readonly #readable: Watch;
  readonly #writable: Watch;
  readonly #byCookie: (Command | undefined)[] = new Array(PLACES).fill(undefined);
  /** The cookie of the latest command. */
  #latest = 0;
  /** Commands were sent since it was looked after. */
  #isTouched = false;
  #isOpen = true;

  /** Takes over a handle. */
  constructor(
    place: number,
    number: number,
    handle: NbdHandle,
    context: StoreContext,
    events: ConnectionEvents,
  ) {
    const lib = libnbd();
    this.place = place;
    this.number = number;
    this.#handle = handle;
    this.#events = events;
    this.facts = exportOf(handle);
    this.#fd = duplicateFd(lib.aio_get_fd(handle));
    this.#readable = context.watch(this.#fd.number, "readable", () => this.#receive());
    this.#writable = context.watch(this.#fd.number, "writable", () => this.#send());
    this.#writable.pause();
  }

  /** It ended, which is noticed soon: see {@linkcode Connection.settle}. */
  get isGone(): boolean {
    return libnbd().aio_get_direction(this.#handle) === 0;
  }

  /**
   * Sends a command, or as much of it as the socket takes.
   *
   * @returns 0, or the errno that refuses it.
   */
  issue(command: Command): number {
    this.#isTouched = true;
    const cookie = this.#issue(command);
    const next = this.#latest + 1;
    if (cookie !== next % 2 ** 32) return libnbd().get_errno() || Errno.EIO;
    this.#latest = next;
    command.connection = this;
    command.cookie = next;
    this.#byCookie[next % PLACES] = command;
    this.inFlight++;
    return 0;
  }

  #issue({ kind, address, bytes, offset }: Command): number {
    const lib = libnbd(), handle = this.#handle, none = NO_CALLBACK;
    switch (kind) {
      case READ:
        return lib.aio_pread(handle, u64(address), bytes, u64(offset), none, 0, 0n, 0n, 0n);
      case WRITE:
        return lib.aio_pwrite(handle, u64(address), bytes, u64(offset), none, 0, 0n, 0n, 0n);
      case FLUSH:
        return lib.aio_flush(handle, NO_CALLBACK_STRUCT, 0);
      case TRIM:
        return lib.aio_trim(handle, u64(bytes), u64(offset), NO_CALLBACK_STRUCT, 0);
      default:
        return lib.aio_zero(handle, u64(bytes), u64(offset), NO_CALLBACK_STRUCT, 0);
    }
  }

  /** Looks after it once a batch of commands was sent. */
  settle(): void {
    if (!this.#isTouched) return;
    this.#isTouched = false;
    const direction = libnbd().aio_get_direction(this.#handle);
    if (direction === 0) this.lose("");
    else if ((direction & DIRECTION_WRITE) !== 0) this.#writable.resume();
  }

  #send(): void {
    this.#writable.pause();
    this.#isTouched = true;
    if (libnbd().aio_notify_write(this.#handle) < 0) this.lose(nbdError());
    else this.settle();
  }

  /**
   * Takes the replies that are there. Asking libnbd for one more would have it wait for that, and
   * hold commands back meanwhile.
   */
  #receive(): void {
    const lib = libnbd(), handle = this.#handle;
    this.#isTouched = true;
    for (let left = 0;;) {
      if (lib.aio_notify_read(handle) < 0) return this.lose(nbdError());
      left -= this.#complete();
      if (!this.#isOpen) return;
      if (left < REPLY_BYTES || this.facts.structured) left = this.#available();
      if (left <= 0) break;
    }
    this.#events.batchEnded();
    this.settle();
  }

  /** Tells of the commands with a reply; returns how many bytes of simple replies those were. */
  #complete(): number {
    const lib = libnbd(), handle = this.#handle;
    let bytes = 0;
    while (this.inFlight > 0) {
      const low = lib.aio_peek_command_completed(handle);
      if (low === 0 || low === 0xffff_ffff) break;
      const command = this.#find(low);
      const errno = lib.aio_command_completed(handle, u64(command.cookie)) === 1
        ? 0
        : lib.get_errno();
      // libnbd gave it up, or the server did: it is sent again by another connection
      if (errno === Errno.ENOTCONN || errno === Errno.ESHUTDOWN) {
        this.lose("the server closed the connection");
        break;
      }
      bytes += command.kind === READ && errno === 0 ? REPLY_BYTES + command.bytes : REPLY_BYTES;
      this.inFlight--;
      command.connection = undefined;
      this.#events.completed(command, errno);
    }
    return bytes;
  }

  /** The command in flight that has a lower half of a cookie. */
  #find(low: number): Command {
    let cookie = Math.floor(this.#latest / 2 ** 32) * 2 ** 32 + low;
    if (cookie > this.#latest) cookie -= 2 ** 32;
    const command = this.#byCookie[cookie % PLACES];
    if (command?.cookie === cookie && command.connection === this) return command;
    return this.#events.find(this, cookie);
  }

  /** The number of bytes that have come. */
  #available(): number {
    return ioctl(this.#fd.number, FIONREAD, available) < 0 ? 0 : available[0];
  }

  /** Closes it, and tells so. */
  lose(why: string): void {
    if (!this.#isOpen) return;
    this.close();
    this.#events.lost(this, why || "the server closed the connection");
  }

  /** Closes it; libnbd does not touch the memory of its commands any more. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const lib = libnbd();
    this.#readable[Symbol.dispose]();
    this.#writable[Symbol.dispose]();
    if (this.inFlight === 0) lib.aio_disconnect(this.#handle, 0);
    lib.close(this.#handle);
    this.#fd.close();
  }
}
