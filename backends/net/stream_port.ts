/**
 * A port on a stream socket: each frame follows its length, a big-endian u32. This is the protocol
 * of QEMU's `-netdev stream`, which passt and others speak. Frames have no virtio-net header, so
 * the port divides the driver's large packets and completes their checksums.
 *
 * @module
 */

import type { Parts, Watch } from "../../mod.ts";
import {
  addressOf,
  copyBetween,
  createEventfd,
  CURRENT_POSITION,
  Errno,
  errno,
  errnoName,
  type Fd,
  IoVectors,
  pinnedBuffer,
  readList,
  readNow,
  signalEventfd,
  writeNow,
  writeVectors,
} from "../../src/linux/mod.ts";
import type { PacketHeader } from "./header.ts";
import { Drop, FULL, HEADER_BYTES, MAX_FRAME_BYTES, MIN_FRAME_BYTES, SENT } from "./packet.ts";
import type { Port, PortOwner, StreamPlan } from "./port.ts";
import type { ReceiveWindow } from "./receive_window.ts";
import { MAX_HEADER_BYTES, MAX_SEGMENTS, Segmenter } from "./segmenter.ts";

const LENGTH_BYTES = 4;

/** The largest frame with its length. */
const MAX_RECORD_BYTES = LENGTH_BYTES + MAX_FRAME_BYTES;

/** How many received bytes are buffered. */
const IN_BYTES = 262_144;

/** Frames up to this size are collected and written together; larger ones are not copied. */
const MAX_COLLECTED_BYTES = 2048;

/** How many collected bytes are written at once. */
const BATCH_BYTES = 65_536;

/** The most bytes of the frames of one packet, with their lengths. */
const MAX_DIVIDED_BYTES = MAX_SEGMENTS * (LENGTH_BYTES + MAX_HEADER_BYTES) + MAX_FRAME_BYTES;

/** How many reads without a whole frame there are before other queues have their turn. */
const MAX_TRIES = 64;

/**
 * The port of a pair. The control half makes the connections, and gives them one after the other by
 * their numbers on the plan's link; the answer says that the port is done with one. Meanwhile
 * packets are dropped.
 */
export class StreamPort implements Port {
  readonly #link: number;
  readonly #owner: PortOwner;
  readonly #linkWatch: Watch;
  /** Always readable: watched while whole frames are buffered. */
  readonly #ready: Fd = createEventfd();
  readonly #buffered: Watch;
  readonly #out: Outbox;
  readonly #vectors = new IoVectors();
  readonly #in = new Uint8Array(pinnedBuffer(IN_BYTES), 0, IN_BYTES);
  readonly #inAddress = addressOf(this.#in);
  #inBegin = 0;
  #inEnd = 0;
  /** The header of every received packet. */
  readonly #header = new Uint8Array(pinnedBuffer(HEADER_BYTES), 0, HEADER_BYTES);
  readonly #headerAddress = addressOf(this.#header);
  /** The connection; -1 when there is none. */
  #fd = -1;
  #readable: Watch | undefined;
  #writable: Watch | undefined;
  #isFull = false;
  #isListening = false;

  constructor(plan: StreamPlan, owner: PortOwner) {
    this.#link = plan.link;
    this.#owner = owner;
    this.#out = new Outbox(owner.base);
    signalEventfd(this.#ready.number);
    this.#buffered = owner.watch(this.#ready.number, "readable", () => owner.readable());
    this.#buffered.pause();
    this.#linkWatch = owner.watch(this.#link, "readable", () => this.#connect());
    this.#connect();
  }

  #connect(): void {
    const number = new Int32Array(1);
    const bytes = readNow(this.#link, new Uint8Array(number.buffer));
    if (bytes === 0) this.#linkWatch.pause(); // The device ends.
    if (bytes < 4) return;
    const fd = this.#fd = number[0];
    this.#forgetPart();
    this.#readable = this.#owner.watch(fd, "readable", () => this.#owner.readable());
    this.#writable = this.#owner.watch(fd, "writable", () => this.#drain());
    this.#writable.pause();
    this.listen(this.#isListening);
  }

  /** Ends the use of the connection. Whole frames that came by it stay. */
  #disconnect(what: string, why: string): void {
    if (this.#fd < 0) return;
    this.#unwatch();
    this.#fd = -1;
    this.#out.clear();
    writeNow(this.#link, new Uint8Array(1));
    this.#owner.notice({ what, why, remedy: "It is connected again without further action" });
    if (!this.#isFull) return;
    this.#isFull = false;
    this.#owner.writable();
  }

  #lost(code: number): void {
    const got = code === 0 ? "the end of its connection" : errnoName(code);
    this.#disconnect("The peer of the network is gone", `Expected frames from it, got ${got}`);
  }

  #unwatch(): void {
    this.#readable?.[Symbol.dispose]();
    this.#writable?.[Symbol.dispose]();
  }

  send(packet: Parts, header: PacketHeader): number {
    if (this.#fd < 0) return Drop.NO_PEER;
    if (this.#isFull) return FULL;
    const bytes = packet.byteLength - HEADER_BYTES;
    const out = this.#out;
    if (header.flags !== 0) {
      if (!out.divide(packet, header)) return Drop.HEADER;
    } else if (bytes > MAX_COLLECTED_BYTES) {
      return this.#sendLarge(packet, bytes);
    } else {
      out.append(packet, this.#owner.base, 0, bytes);
    }
    if (out.bytes >= BATCH_BYTES) this.flush();
    return SENT;
  }

  /** Writes a frame from guest memory, behind what is collected. */
  #sendLarge(packet: Parts, bytes: number): number {
    const out = this.#out, vectors = this.#vectors;
    vectors.count = 0;
    const before = out.list(vectors);
    vectors.push(out.length(bytes), LENGTH_BYTES);
    packet.gather(vectors, this.#owner.base, HEADER_BYTES);
    const written = this.#write();
    if (this.#fd < 0) return Drop.NO_PEER;
    if (written < 0) return Drop.REFUSED;
    out.consume(Math.min(written, before));
    const done = written - before;
    if (done < LENGTH_BYTES + bytes) {
      if (done > 0) out.append(packet, this.#owner.base, done, bytes);
      this.#wait();
      if (done <= 0) return FULL;
    }
    return SENT;
  }

  flush(): void {
    const out = this.#out;
    if (out.bytes === 0 || this.#isFull) return;
    this.#vectors.count = 0;
    out.list(this.#vectors);
    out.consume(this.#write());
    if (out.bytes > 0) this.#wait();
  }

  /** Returns how many bytes of the vectors were written; -1 when the driver's memory is gone. */
  #write(): number {
    for (;;) {
      const written = writeVectors(this.#fd, this.#vectors, CURRENT_POSITION);
      if (written >= 0) return written;
      const code = errno();
      if (code === Errno.EAGAIN) return 0;
      if (code === Errno.EINTR) continue;
      if (code === Errno.EFAULT) return -1;
      this.#lost(code);
      return 0;
    }
  }

  /** Takes no packets until what is collected has been written. */
  #wait(): void {
    this.#isFull = true;
    this.#writable!.resume();
  }

  #drain(): void {
    this.#writable!.pause();
    this.#isFull = false;
    this.flush();
    if (!this.#isFull) this.#owner.writable();
  }

  receive(window: ReceiveWindow): number {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const bytes = this.#wholeFrame();
      if (bytes > 0) {
        window.rewind();
        window.addresses[1] = this.#headerAddress;
        window.copy(HEADER_BYTES);
        window.addresses[1] = this.#inAddress + this.#inBegin + LENGTH_BYTES;
        window.copy(bytes);
        this.#inBegin += LENGTH_BYTES + bytes;
        return HEADER_BYTES + bytes;
      }
      if (!this.#read()) return 0;
    }
    return 0;
  }

  /** The size of the buffered frame that is next; 0 when it is not whole, -1 when none can be. */
  #wholeFrame(at = this.#inBegin): number {
    const received = this.#inEnd - at;
    if (received < LENGTH_BYTES) return 0;
    const bytes = (this.#in[at] << 24 | this.#in[at + 1] << 16 | this.#in[at + 2] << 8 |
      this.#in[at + 3]) >>> 0;
    if (bytes < MIN_FRAME_BYTES || bytes > MAX_FRAME_BYTES) return -1;
    return received < LENGTH_BYTES + bytes ? 0 : bytes;
  }

  /** Reads more of the stream; returns whether there can be a frame now. */
  #read(): boolean {
    if (this.#fd < 0) return false;
    if (this.#wholeFrame() < 0) {
      const at = this.#inBegin, length = this.#in.subarray(at, at + LENGTH_BYTES);
      this.#disconnect(
        "The peer of the network broke its protocol, and its connection was closed",
        `Expected the length of a frame, ${MIN_FRAME_BYTES} to ${MAX_FRAME_BYTES}, ` +
          `got 0x${length.toHex()}`,
      );
      return false;
    }
    if (this.#inBegin === this.#inEnd) this.#inBegin = this.#inEnd = 0;
    if (IN_BYTES - this.#inBegin < MAX_RECORD_BYTES) {
      this.#in.copyWithin(0, this.#inBegin, this.#inEnd);
      this.#inEnd -= this.#inBegin;
      this.#inBegin = 0;
    }
    const vectors = this.#vectors;
    vectors.count = 0;
    vectors.push(this.#inAddress + this.#inEnd, IN_BYTES - this.#inEnd);
    const bytes = readList(this.#fd, vectors.address, 1);
    if (bytes > 0) {
      this.#inEnd += bytes;
      return true;
    }
    const code = bytes === 0 ? 0 : errno();
    if (code === Errno.EINTR) return true;
    if (code !== Errno.EAGAIN) this.#lost(code);
    return false;
  }

  /** Forgets the frame of which only a part came before the connection ended. */
  #forgetPart(): void {
    let at = this.#inBegin;
    for (let bytes; (bytes = this.#wholeFrame(at)) > 0;) at += LENGTH_BYTES + bytes;
    this.#inEnd = at;
  }

  listen(isListening: boolean): void {
    this.#isListening = isListening;
    if (isListening && this.#wholeFrame() > 0) this.#buffered.resume();
    else this.#buffered.pause();
    if (this.#fd < 0) return;
    if (isListening) this.#readable!.resume();
    else this.#readable!.pause();
  }

  [Symbol.dispose](): void {
    this.#unwatch();
    this.#linkWatch[Symbol.dispose]();
    this.#buffered[Symbol.dispose]();
    this.#ready.close();
  }
}

/** Frames with their lengths, on their way to the socket. */
class Outbox {
  // A batch that is not yet full has room for all frames of any packet.
  readonly #memory = new Uint8Array(pinnedBuffer(BATCH_BYTES + MAX_DIVIDED_BYTES));
  readonly #view = new DataView(this.#memory.buffer);
  readonly #segmenter: Segmenter;
  readonly #address = addressOf(this.#memory);
  readonly #length = new DataView(pinnedBuffer(LENGTH_BYTES));
  readonly #lengthAddress = addressOf(this.#length);
  /** Where a copy goes to, and where from: see `copyBetween`. */
  readonly #addresses = new Float64Array(2);
  #begin = 0;
  #end = 0;

  /** @param base The address of index 0 of guest memory. */
  constructor(base: number) {
    this.#segmenter = new Segmenter(this.#memory, base);
  }

  /** How many bytes there are. */
  get bytes(): number {
    return this.#end - this.#begin;
  }

  clear(): void {
    this.#begin = this.#end = 0;
  }

  /** Adds all bytes to a list, and returns how many there are. */
  list(vectors: IoVectors): number {
    if (this.bytes > 0) vectors.push(this.#address + this.#begin, this.bytes);
    return this.bytes;
  }

  /** Removes bytes that were written. */
  consume(bytes: number): void {
    this.#begin += bytes;
    if (this.#begin === this.#end) this.clear();
  }

  /** The address of the length of a frame, until the next call. */
  length(bytes: number): number {
    this.#length.setUint32(0, bytes);
    return this.#lengthAddress;
  }

  /** Appends a packet's frame of `bytes` bytes and its length, without the first `done` bytes. */
  append(packet: Parts, base: number, done: number, bytes: number): void {
    const addresses = this.#addresses;
    if (done < LENGTH_BYTES) {
      this.#length.setUint32(0, bytes);
      addresses[1] = this.#lengthAddress + done;
      this.#copy(LENGTH_BYTES - done);
    }
    let skip = HEADER_BYTES + Math.max(0, done - LENGTH_BYTES);
    for (let i = 0; i < packet.count; i++) {
      const left = packet.length(i) - skip;
      if (left > 0) {
        addresses[1] = base + packet.index(i) + skip;
        this.#copy(left);
      }
      skip = Math.max(0, -left);
    }
  }

  /** Appends the frames of a packet; returns false when its header is wrong. */
  divide(packet: Parts, header: PacketHeader): boolean {
    const segmenter = this.#segmenter;
    let left = segmenter.begin(packet, header);
    if (left === 0) return false;
    for (; left > 0; left--) {
      const bytes = segmenter.next(this.#end + LENGTH_BYTES);
      this.#view.setUint32(this.#end, bytes);
      this.#end += LENGTH_BYTES + bytes;
    }
    return true;
  }

  /** Appends bytes that lie at `addresses[1]`. */
  #copy(bytes: number): void {
    this.#addresses[0] = this.#address + this.#end;
    copyBetween(this.#addresses, bytes);
    this.#end += bytes;
  }
}
