/**
 * Which port of a switch has which MAC address.
 *
 * An address is three numbers of 16 bits, little-endian words of a frame, so that no number is too
 * large for V8 to keep outside of its heap.
 *
 * @module
 */

/** Time after which an address that sent nothing is forgotten, in seconds. */
export const AGE_S = 300;

/** The most addresses of a guest: a guest that uses more cannot displace those of others. */
export const GUEST_ADDRESSES = 128;

/** The most addresses behind the uplink. */
export const UPLINK_ADDRESSES = 2048;

/** Twice the addresses of 16 guests and the uplink, so that lookups are short. */
const SLOTS = 8192;

const FREE = 0xff;

/** `pinned` stands for the time at which such an address was seen. */
const PINNED = -1;

/** An address, for people. */
export interface MacJson {
  mac: string;
  port: number;
  /** Seconds since it sent something; null if it is the port's by configuration. */
  age: number | null;
}

/** A hash table with linear probing; times are whole seconds, of any clock. */
export class MacTable {
  readonly #words = new Uint16Array(3 * SLOTS);
  readonly #ports = new Uint8Array(SLOTS).fill(FREE);
  readonly #seen = new Int32Array(SLOTS);
  /** The number of addresses of each port. */
  readonly #counts = new Uint16Array(FREE);
  /** When addresses that are too old were removed last. */
  #swept = 0;
  /** Keeps guests from choosing addresses with the same hash. */
  readonly #seed = crypto.getRandomValues(new Uint32Array(3));

  /** The port of an address; -1 when it is unknown. */
  find(a: number, b: number, c: number, now: number): number {
    const slot = this.#slot(a, b, c);
    const port = this.#ports[slot];
    return port === FREE || this.#isOld(slot, now) ? -1 : port;
  }

  /**
   * Notes that an address sent something through a port. It is not kept if the port has as many
   * addresses as it may have.
   *
   * @returns Whether the port may use the address: it is not another one's by configuration.
   */
  learn(a: number, b: number, c: number, port: number, most: number, now: number): boolean {
    const slot = this.#slot(a, b, c);
    const known = this.#ports[slot];
    if (known === port) {
      if (this.#seen[slot] !== PINNED) this.#seen[slot] = now;
      return true;
    }
    if (known !== FREE && this.#seen[slot] === PINNED) return false;
    if (this.#counts[port] >= most && !this.#sweep(port, most, now)) return true;
    this.#set(this.#slot(a, b, c), a, b, c, port, now);
    return true;
  }

  /**
   * Gives an address to a port for good.
   *
   * @returns Whether it did: it is not another one's by configuration.
   */
  pin(a: number, b: number, c: number, port: number): boolean {
    const slot = this.#slot(a, b, c);
    const known = this.#ports[slot];
    if (known !== FREE && known !== port && this.#seen[slot] === PINNED) return false;
    this.#set(slot, a, b, c, port, PINNED);
    return true;
  }

  /** Forgets what was learned of a port. */
  forget(port: number): void {
    this.#removeWhere((slot) => this.#ports[slot] === port && this.#seen[slot] !== PINNED);
  }

  /** The addresses that are known. */
  list(now: number): MacJson[] {
    const list: MacJson[] = [];
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.#ports[slot] === FREE || this.#isOld(slot, now)) continue;
      const bytes = new Uint8Array(this.#words.buffer, 6 * slot, 6);
      list.push({
        mac: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":"),
        port: this.#ports[slot],
        age: this.#seen[slot] === PINNED ? null : now - this.#seen[slot],
      });
    }
    return list.sort((a, b) => a.port - b.port || (a.mac < b.mac ? -1 : 1));
  }

  #set(slot: number, a: number, b: number, c: number, port: number, seen: number): void {
    const known = this.#ports[slot];
    if (known !== FREE) this.#counts[known]--;
    this.#words[3 * slot] = a;
    this.#words[3 * slot + 1] = b;
    this.#words[3 * slot + 2] = c;
    this.#ports[slot] = port;
    this.#seen[slot] = seen;
    this.#counts[port]++;
  }

  #isOld(slot: number, now: number): boolean {
    const seen = this.#seen[slot];
    return seen !== PINNED && now - seen >= AGE_S;
  }

  /** The slot of an address, or the free one where it belongs. */
  #slot(a: number, b: number, c: number): number {
    const words = this.#words, ports = this.#ports;
    let slot = this.#hash(a, b, c);
    while (
      ports[slot] !== FREE &&
      (words[3 * slot] !== a || words[3 * slot + 1] !== b || words[3 * slot + 2] !== c)
    ) slot = (slot + 1) & (SLOTS - 1);
    return slot;
  }

  #hash(a: number, b: number, c: number): number {
    const seed = this.#seed;
    let hash = Math.imul(a ^ seed[0], 0x9e3779b1) ^ Math.imul(b ^ seed[1], 0x85ebca77);
    hash = Math.imul(hash ^ hash >>> 15 ^ c ^ seed[2], 0xc2b2ae3d);
    return (hash ^ hash >>> 13) & (SLOTS - 1);
  }

  /** Removes what is too old, at most once a second; returns whether a port may have one more. */
  #sweep(port: number, most: number, now: number): boolean {
    if (this.#swept === now) return false;
    this.#swept = now;
    this.#removeWhere((slot) => this.#isOld(slot, now));
    return this.#counts[port] < most;
  }

  #removeWhere(isRemoved: (slot: number) => boolean): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      // Removing moves a later address to this slot.
      while (this.#ports[slot] !== FREE && isRemoved(slot)) this.#remove(slot);
    }
  }

  /** Frees a slot, and moves up addresses that would not be found behind a free one. */
  #remove(slot: number): void {
    const words = this.#words;
    this.#counts[this.#ports[slot]]--;
    let free = slot;
    for (;;) {
      this.#ports[free] = FREE;
      let next = free;
      for (;;) {
        next = (next + 1) & (SLOTS - 1);
        if (this.#ports[next] === FREE) return;
        const home = this.#hash(words[3 * next], words[3 * next + 1], words[3 * next + 2]);
        // Whether it is at home behind the free slot, seen from its own.
        if (((next - home) & (SLOTS - 1)) >= ((next - free) & (SLOTS - 1))) break;
      }
      words.copyWithin(3 * free, 3 * next, 3 * next + 3);
      this.#ports[free] = this.#ports[next];
      this.#seen[free] = this.#seen[next];
      free = next;
    }
  }
}
