/**
 * What in-flight records of both layouts have in common.
 *
 * A back-end that dies leaves chains that it had taken and not given back. In a
 * split ring it cannot be seen which ones, and in a packed ring their
 * descriptors may be overwritten by then. So what is in flight is recorded,
 * queue by queue, in memory that the front-end keeps, and the next back-end
 * does those chains again.
 *
 * While a ring runs its record is only written, from numbers that this side
 * keeps itself: the front-end can change the memory at any time. What stands in
 * it is believed once, when the ring is placed, and only after a check.
 *
 * The order of its stores makes a record right after a crash between any two of
 * them. What a thread had stored when it was killed, in the order of its
 * program, is what others find afterwards, whatever the processor; but V8 may
 * exchange plain stores. So those that others must not pass go through
 * `Atomics`, which is never exchanged with anything. They are dear, so there is
 * none per request, only per batch.
 *
 * Source: QEMU, docs/interop/vhost-user.rst, Inflight I/O tracking.
 *
 * @module
 */

/** The version of both layouts. */
const VERSION = 1;
/** What stands in a record that nobody has written yet. */
const UNINITIALIZED = 0;

// Places in units of u16; before them is a u64 of features, of which none are defined.
const VERSION_AT = 4, DESC_NUM_AT = 5;

/** Where the counter is in a chain's entry, in units of u32; its upper half follows. */
const COUNTER = 2;

/** The memory of one queue's record. */
export interface InflightRegion {
  bytes: Uint8Array<ArrayBuffer>;
  /** For how many descriptors it is: at least as many as the ring has. */
  descriptors: number;
}

/** A record that makes no sense, or none for its ring. */
export class InflightError extends Error {
  override name = "InflightError";
}

/** The memory of a record, as numbers, with the parts of its header that both layouts have. */
export class InflightMemory {
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly u16: Uint16Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly descriptors: number;
  /** Nobody has written it yet. */
  isFresh: boolean;
  /** The two halves of the next chain's counter. */
  readonly #counter = new Uint32Array(2);

  /**
   * Views a record.
   *
   * @throws {InflightError} When it is too small or of another version or size.
   */
  constructor({ bytes, descriptors }: InflightRegion, ringSize: number, wantedBytes: number) {
    if (descriptors < ringSize || bytes.length < wantedBytes) {
      throw new InflightError(
        `Expected an in-flight record of ${wantedBytes} bytes for a queue of ${ringSize}, got ${bytes.length} for one of ${descriptors}`,
      );
    }
    const { buffer, byteOffset } = bytes;
    this.u8 = new Uint8Array(buffer, byteOffset, wantedBytes);
    this.u16 = new Uint16Array(buffer, byteOffset, wantedBytes / 2);
    this.u32 = new Uint32Array(buffer, byteOffset, wantedBytes / 4);
    this.descriptors = descriptors;
    const version = this.u16[VERSION_AT];
    this.isFresh = version === UNINITIALIZED;
    if (this.isFresh) {
      this.begin();
    } else if (version !== VERSION || this.u16[DESC_NUM_AT] !== descriptors) {
      throw new InflightError(
        `Expected an in-flight record of version ${VERSION} for ${descriptors} descriptors, got version ${version} for ${
          this.u16[DESC_NUM_AT]
        }`,
      );
    }
  }

  /** Begins it anew, whatever stands in it. */
  begin(): void {
    Atomics.store(this.u16, VERSION_AT, UNINITIALIZED);
    this.u8.fill(0);
    this.u16[DESC_NUM_AT] = this.descriptors;
    this.isFresh = true;
  }

  /** A fresh record is complete now. */
  initialized(): void {
    Atomics.store(this.u16, VERSION_AT, VERSION);
  }

  /** Gives an entry, which begins at a u32, the next counter. */
  count(entry: number): void {
    const counter = this.#counter;
    this.u32[entry + COUNTER] = counter[0];
    this.u32[entry + COUNTER + 1] = counter[1];
    if (++counter[0] === 0) counter[1]++;
  }

  /**
   * Puts chains into the order of their counters.
   *
   * @param chains Their numbers
   * @param entry Where the entry of each begins, in units of u32
   */
  inOrder(chains: readonly number[], entry: (chain: number) => number): number[] {
    return chains.map((chain) => {
      const at = entry(chain) + COUNTER;
      return { chain, low: this.u32[at], high: this.u32[at + 1] };
    }).sort((a, b) => a.high - b.high || a.low - b.low).map(({ chain }) => chain);
  }

  /** Counts on behind all of some chains. */
  countFrom(chains: readonly number[], entry: (chain: number) => number): void {
    const last = this.inOrder(chains, entry).at(-1);
    if (last === undefined) return;
    const low = this.u32[entry(last) + COUNTER] + 1;
    const high = this.u32[entry(last) + COUNTER + 1] + (low > 0xffff_ffff ? 1 : 0);
    this.#counter.set([low, high]);
  }
}
