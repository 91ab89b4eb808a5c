/**
 * Carries requests out by the connections to an NBD server, on the queue thread.
 *
 * @module
 */

import { LATER, Parts } from "../../../mod.ts";
import {
  addressOf,
  createTimer,
  drainEventfd,
  Errno,
  pinnedBuffer,
  setTimer,
  type Watch,
} from "../../../src/linux/mod.ts";
import type { StoreContext } from "../module/define_store.ts";
import type { StoreRequest } from "../store.ts";
import { Command, Connection, type ConnectionEvents, FLUSH, READ, WRITE } from "./connection.ts";
import { Link, type LinkHandle } from "./link.ts";

/** The most commands in flight; the others wait. */
const MAX_COMMANDS = 256;

/** The most bytes of a command for data in several parts, which are put together in a buffer. */
const BUFFER_BYTES = 2 ** 18;

/** The most such buffers. */
const MAX_BUFFERS = 64;

/** The most bytes of a command without data. */
const MAX_RANGE_BYTES = 2 ** 30;

/** How many losses of its connection a command may see: see `#sendAgain`. */
const MAX_LOSSES = 4;

/** The period of the clock, in microseconds. */
const TICK_US = 1e6;

/** What a queue thread gets. */
export interface NbdShared {
  readonly link: LinkHandle;
  /** Where the server listens, for messages. */
  readonly server: string;
  /** Whether it can flush. */
  readonly flush: boolean;
  /** How long requests wait for a connection, in seconds. */
  readonly reconnect: number;
  /** How long a command may be without a reply, in seconds. */
  readonly timeout: number;
}

/** The request of a flush of our own. */
const NO_REQUEST: StoreRequest = {
  data: new Parts(new Uint8Array()),
  dataOffset: 0,
  offset: 0,
  bytes: 0,
};

/** A request, which takes one or more commands. */
class Transfer {
  request: StoreRequest | undefined;
  kind = READ;
  /** How much there is to do; 1 for a flush. */
  bytes = 0;
  /** How much of it has a command. */
  begun = 0;
  /** The number of its commands without a result. */
  left = 0;
  /** The first error. */
  errno = 0;
}

/** Memory for data in several parts. */
class DataBuffer {
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(pinnedBuffer(BUFFER_BYTES));
  readonly address: number = addressOf(this.bytes);
}

/** A command of a transfer. */
class Piece extends Command {
  transfer: Transfer | undefined;
  /** Where in the transfer its data is. */
  at = 0;
  /** Holds its data in place of guest memory. */
  buffer: DataBuffer | undefined;
  /** The number of completed writes when it was sent. */
  written = 0;
  /** When it was sent, in ticks. */
  since = 0;
  /** How often it lost its connection, and how many connections had been taken at the latest loss. */
  losses = 0;
  lossAt = 0;
}

/** The connections of a disk, and the requests for them. */
export class NbdQueue implements ConnectionEvents {
  readonly #context: StoreContext;
  readonly #shared: NbdShared;
  readonly #link: Link;
  readonly #connections: Connection[] = [];
  /** The number of connections taken so far. */
  #taken = 0;
  readonly #pieces: Piece[] = [];
  readonly #free: Piece[] = [];
  readonly #freeTransfers: Transfer[] = [];
  readonly #buffers: DataBuffer[] = [];
  #buffersMade = 0;
  /** Transfers that need further commands, and commands that lost their connection. */
  #waiting: Transfer[] = [];
  #again: Piece[] = [];
  /** The number of writes that were completed, and of those that a flush has made durable. */
  #written = 0;
  #durable = 0;
  /**
   * While this is more than `#durable`, a connection was lost to a server that still has others,
   * which are flushed. New ones may lead to another server that knows nothing of these writes.
   */
  #endangered = 0;
  /** Completed writes may be lost: flushes fail. */
  #isLossy = false;
  /** Why a piece fails that is not sent again. */
  #lateErrno: number = Errno.ETIMEDOUT;
  /** Seconds with something to do. */
  #ticks = 0;
  /** Since when there is no connection, in ticks; negative while there is one. */
  #offline = -1;
  /** There was none for too long: requests fail. */
  #isExpired = false;
  readonly #timer = createTimer();
  #isTimed = false;
  readonly #watches: readonly Watch[];

  /** Takes the connections that there are. */
  constructor(context: StoreContext) {
    this.#context = context;
    this.#shared = context.shared as NbdShared;
    this.#link = new Link(this.#shared.link);
    for (let i = 0; i < MAX_COMMANDS; i++) this.#pieces.push(new Piece());
    this.#free.push(...this.#pieces);
    const { toQueue } = this.#shared.link;
    this.#watches = [
      context.watch(toQueue, "readable", () => {
        drainEventfd(toQueue);
        this.#connect();
      }),
      context.watch(this.#timer.number, "readable", () => this.#tick()),
    ];
    this.#connect();
  }

  /** Begins a request; returns its result where that is known. */
  begin(request: StoreRequest, kind: number): number {
    if (this.#isExpired) return Errno.EIO;
    if (kind === FLUSH && !this.#shared.flush) return 0;
    const transfer = this.#freeTransfers.pop() ?? new Transfer();
    transfer.request = request;
    transfer.kind = kind;
    transfer.begun = transfer.left = transfer.errno = 0;
    transfer.bytes = kind === FLUSH ? 1 : request.bytes;
    if (this.#waiting.length > 0 || !this.#advance(transfer)) {
      this.#waiting.push(transfer);
      return LATER;
    }
    return transfer.left > 0 ? LATER : this.#release(transfer);
  }

  /** Sends what a transfer needs; returns whether that is all. */
  #advance(transfer: Transfer): boolean {
    while (transfer.begun < transfer.bytes && transfer.errno === 0) {
      const connection = this.#connection();
      if (connection === undefined) return false;
      const piece = this.#free.pop();
      if (piece === undefined) return false;
      if (!this.#cut(piece, transfer, connection)) {
        this.#free.push(piece);
        return false;
      }
      transfer.begun += piece.bytes;
      transfer.left++;
      const errno = this.#issue(piece, connection);
      if (errno !== 0) this.#drop(piece, errno);
    }
    return true;
  }

  /** Makes a piece the next one of a transfer; returns false when there is no buffer for it. */
  #cut(piece: Piece, transfer: Transfer, connection: Connection): boolean {
    const { kind, begun } = transfer;
    const { data, dataOffset, offset } = transfer.request!;
    let bytes = transfer.bytes - begun;
    if (kind === READ || kind === WRITE) {
      bytes = Math.min(bytes, connection.facts.maxBytes);
      const index = data.locate(dataOffset + begun, bytes);
      if (index >= 0) {
        piece.address = this.#context.memory.base + index;
      } else {
        const buffer = this.#buffers.pop() ?? this.#newBuffer();
        if (buffer === undefined) return false;
        bytes = Math.min(bytes, BUFFER_BYTES);
        piece.buffer = buffer;
        piece.address = buffer.address;
        if (kind === WRITE) data.read(dataOffset + begun, buffer.bytes.subarray(0, bytes));
      }
    } else {
      bytes = Math.min(bytes, MAX_RANGE_BYTES);
    }
    piece.transfer = transfer;
    piece.kind = kind;
    piece.at = begun;
    piece.offset = offset + begun;
    piece.bytes = bytes;
    piece.losses = piece.lossAt = 0;
    return true;
  }

  #newBuffer(): DataBuffer | undefined {
    if (this.#buffersMade === MAX_BUFFERS) return undefined;
    this.#buffersMade++;
    return new DataBuffer();
  }

  /** The connection with the fewest commands. */
  #connection(): Connection | undefined {
    const connections = this.#connections;
    let best: Connection | undefined;
    for (let i = 0; i < connections.length; i++) {
      const connection = connections[i];
      if (connection.isGone) continue;
      if (best === undefined || connection.inFlight < best.inFlight) best = connection;
    }
    return best;
  }

  /** Sends a piece; returns 0, or why it cannot be sent. */
  #issue(piece: Piece, connection: Connection): number {
    if (piece.kind === FLUSH && this.#isLossy) return Errno.EIO;
    piece.written = this.#written;
    piece.since = this.#ticks;
    this.#startTimer();
    const errno = connection.issue(piece);
    if (errno === 0 || !connection.isGone) return errno;
    return this.#sendAgain(piece, connection) ? 0 : Errno.ETIMEDOUT;
  }

  /**
   * Queues a piece to be sent again; returns false if it lost too many connections. A server that
   * goes away ends all its connections, and the piece may try each of them: that is one loss.
   */
  #sendAgain(piece: Piece, connection: Connection): boolean {
    if (connection.number > piece.lossAt) {
      piece.losses++;
      piece.lossAt = this.#taken;
    }
    if (piece.losses >= MAX_LOSSES) return false;
    this.#again.push(piece);
    return true;
  }

  completed(command: Command, errno: number): void {
    const piece = command as Piece;
    const transfer = piece.transfer!;
    this.#drop(piece, errno);
    if (transfer.left > 0) return;
    if (transfer.begun < transfer.bytes && transfer.errno === 0) return; // it waits for its next piece
    this.#end(transfer);
  }

  /** Takes a piece with its result out of its transfer. */
  #drop(piece: Piece, errno: number): void {
    const transfer = piece.transfer!;
    const { buffer, kind } = piece;
    if (errno !== 0) transfer.errno ||= errno;
    else if (kind === FLUSH) this.#durable = Math.max(this.#durable, piece.written);
    else if (kind !== READ) this.#written++;
    if (buffer !== undefined) {
      if (kind === READ && errno === 0) {
        const { data, dataOffset } = transfer.request!;
        data.write(dataOffset + piece.at, buffer.bytes.subarray(0, piece.bytes));
      }
      this.#buffers.push(buffer);
      piece.buffer = undefined;
    }
    piece.transfer = undefined;
    transfer.left--;
    this.#free.push(piece);
  }

  #end(transfer: Transfer): void {
    const request = transfer.request!, errno = this.#release(transfer);
    if (request !== NO_REQUEST) return this.#context.done(request, errno);
    // Where the flush failed, the server has lost the writes
    if (errno !== 0) {
      this.#noteLoss("the server did not flush them by its other connections");
      this.#endangered = 0;
    }
    this.#connect();
  }

  /** Makes flushes fail: completed writes may be lost. */
  #noteLoss(why: string): void {
    if (this.#isLossy) return;
    this.#isLossy = true;
    this.#context.notice({
      what: `writes that the NBD server ${this.#shared.server} had completed may be lost`,
      why,
      remedy: "flushes fail from now on; shut the guest down and start vhostd again, and the " +
        "guest checks its file systems",
    });
  }

  /** Frees a transfer; returns its result. */
  #release(transfer: Transfer): number {
    transfer.request = undefined;
    this.#freeTransfers.push(transfer);
    return transfer.errno;
  }

  batchEnded(): void {
    this.#continue();
    this.#context.flush();
  }

  /** All requests of a batch were made. */
  submit(): void {
    const connections = this.#connections;
    // One that is lost takes itself out, and may take others along
    for (let i = connections.length - 1; i >= 0; i--) connections[i]?.settle();
  }

  /** Sends pending requests. */
  #continue(): void {
    while (this.#again.length > 0) {
      const connection = this.#connection();
      if (connection === undefined) return;
      const piece = this.#again.shift()!;
      const errno = this.#issue(piece, connection);
      if (errno !== 0) this.completed(piece, errno);
    }
    while (this.#waiting.length > 0) {
      const transfer = this.#waiting[0];
      if (!this.#advance(transfer)) return;
      this.#waiting.shift();
      if (transfer.left === 0) this.#end(transfer);
    }
  }

  // Connections.

  /** Takes the connections that are offered. */
  #connect(): void {
    if (this.#connections.length > 0 && this.#endangered > this.#durable) return;
    for (let place = 0; place < this.#link.count; place++) {
      const handle = this.#link.take(place);
      if (handle === undefined) continue;
      this.#taken++;
      this.#connections.push(new Connection(place, this.#taken, handle, this.#context, this));
      this.#offline = -1;
      this.#isExpired = false;
    }
    this.batchEnded();
    this.submit();
  }

  lost(connection: Connection, why: string): void {
    this.#connections.splice(this.#connections.indexOf(connection), 1);
    for (const piece of this.#pieces) {
      if (piece.connection !== connection) continue;
      piece.connection = undefined;
      if (!this.#sendAgain(piece, connection)) this.completed(piece, this.#lateErrno);
    }
    const { server, reconnect } = this.#shared;
    this.#context.notice({
      what: `a connection to the NBD server ${server} is lost`,
      why,
      remedy: `requests wait up to ${reconnect} s for a new one`,
    });
    const isEndangered = this.#shared.flush && this.#written > this.#durable;
    if (this.#connections.length > 0) {
      if (isEndangered) {
        this.#endangered = this.#written;
        this.begin(NO_REQUEST, FLUSH);
      }
    } else {
      if (isEndangered) this.#noteLoss("the server went away before they were flushed");
      this.#offline = this.#ticks;
      if (reconnect === 0) this.#expire();
      else this.#startTimer();
    }
    this.#link.vacate(connection.place);
    this.batchEnded();
    this.submit();
  }

  find(connection: Connection, cookie: number): Command {
    return this.#pieces.find((piece) =>
      piece.connection === connection && piece.cookie === cookie
    )!;
  }

  /** Requests fail from now on: there was no connection for too long. */
  #expire(): void {
    this.#isExpired = true;
    this.#fail(Errno.EIO);
  }

  /** Ends pending requests. */
  #fail(errno: number): void {
    for (const piece of this.#again.splice(0)) this.completed(piece, errno);
    for (const transfer of this.#waiting.splice(0)) {
      transfer.errno ||= errno;
      if (transfer.left === 0) this.#end(transfer);
    }
    this.#context.flush();
  }

  /** Ends all requests; a connection that owes a reply is closed, so that none comes late. */
  cancel(): void {
    this.#fail(Errno.ECANCELED);
    this.#lateErrno = Errno.ECANCELED;
    // Without those that a loss has flushed
    for (const connection of this.#connections.filter(({ inFlight }) => inFlight > 0)) {
      for (const piece of this.#pieces) {
        if (piece.connection === connection) piece.losses = MAX_LOSSES;
      }
      connection.lose("its replies came too late for a stop");
    }
    this.#lateErrno = Errno.ETIMEDOUT;
    this.#context.flush();
  }

  #startTimer(): void {
    if (this.#isTimed) return;
    this.#isTimed = true;
    setTimer(this.#timer.number, TICK_US);
  }

  /** A second has passed. */
  #tick(): void {
    drainEventfd(this.#timer.number);
    this.#isTimed = false;
    this.#ticks++;
    const { timeout, reconnect } = this.#shared;
    const isLate = (piece: Piece) =>
      piece.connection !== undefined && this.#ticks - piece.since > timeout;
    for (let piece; (piece = this.#pieces.find(isLate)) !== undefined;) {
      piece.losses = MAX_LOSSES;
      piece.connection!.lose(`it did not answer for ${timeout} s`);
    }
    if (this.#offline >= 0 && this.#ticks - this.#offline >= reconnect && !this.#isExpired) {
      this.#expire();
    }
    const isWaiting = this.#offline >= 0 && !this.#isExpired;
    if (isWaiting || this.#free.length < MAX_COMMANDS) this.#startTimer();
  }

  /** Closes all connections. */
  close(): void {
    for (const watch of this.#watches) watch[Symbol.dispose]();
    for (const connection of this.#connections) connection.close();
    this.#timer.close();
  }
}
