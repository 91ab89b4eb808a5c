/**
 * In-flight records: what both layouts have in common.
 *
 * A back-end that dies leaves chains that it had taken and not put back. A split ring does not show
 * which ones, and in a packed ring their descriptors may be overwritten by then. So what is in
 * flight is recorded, queue by queue, in memory that the front-end keeps, and the next back-end
 * does those chains again.
 *
 * While a ring runs its record is only written, from numbers that this side keeps itself, as the
 * front-end can change the memory at any time. It is read once, when the ring is placed, and
 * checked.
 *
 * The order of its stores makes a record right after a crash between any two of them. Whatever the
 * processor, what a thread had stored when it was killed, in program order, is what others find
 * afterwards. V8 may reorder plain stores, so those that others must not pass go through `Atomics`.
 * These are slow: there is none per request, only per batch.
 *
 * Source: QEMU, docs/interop/vhost-user.rst, Inflight I/O tracking.
 *
 * @module
 */

/** The version of both layouts. */
const VERSION = 1;
/** The version of a record that was never written. */
const UNINITIALIZED = 0;

// Places in units of u16; before them is a u64 of features, of which none are defined.
const VERSION_AT = 4, DESC_NUM_AT = 5;

/** Where the counter is in a chain's entry, in units of u32; its upper half follows. */
const COUNTER = 2;

/** Where one queue's record is. */
export interface InflightRegion {
  bytes: Uint8Array<ArrayBuffer>;
  /** For how many descriptors it is: at least as many as the ring has. */
  descriptors: number;
}

/** A record that makes no sense, or none for its ring. */
export class InflightError extends Error {
  override name = "InflightError";
}

/** The memory of a record, as numbers, and its counters. */
export abstract class InflightRecord {
  /** The chains that were in flight when the ring was placed, in the order in which they were taken. */
  abstract readonly unfinished: readonly number[];
  /** The ring begins with this record. */
  isFresh: boolean;
  protected readonly u8: Uint8Array<ArrayBuffer>;
  protected readonly u16: Uint16Array<ArrayBuffer>;
  protected readonly u32: Uint32Array<ArrayBuffer>;
  protected readonly descriptors: number;
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

  /** The u32 at which the entry of a chain begins. */
  protected abstract wordAt(entry: number): number;

  /** Resets it. */
  protected begin(): void {
    Atomics.store(this.u16, VERSION_AT, UNINITIALIZED);
    this.u8.fill(0);
    this.u16[DESC_NUM_AT] = this.descriptors;
    this.isFresh = true;
  }

  /** Completes a fresh record. */
  protected initialized(): void {
    Atomics.store(this.u16, VERSION_AT, VERSION);
  }

  /** Gives a chain, whose entry begins at a u32, the next counter. */
  protected count(word: number): void {
    const counter = this.#counter;
    this.u32[word + COUNTER] = counter[0];
    this.u32[word + COUNTER + 1] = counter[1];
    if (++counter[0] === 0) counter[1]++;
  }

  /** Puts chains into the order of their counters. */
  protected inOrder(chains: readonly number[]): number[] {
    return chains.map((chain) => {
      const at = this.wordAt(chain) + COUNTER;
      return { chain, low: this.u32[at], high: this.u32[at + 1] };
    }).sort((a, b) => a.high - b.high || a.low - b.low).map(({ chain }) => chain);
  }

  /** Continues to count behind all of some chains. */
  protected countFrom(chains: readonly number[]): void {
    const last = this.inOrder(chains).at(-1);
    if (last === undefined) return;
    const at = this.wordAt(last) + COUNTER;
    const low = this.u32[at] + 1;
    this.#counter.set([low, this.u32[at + 1] + (low > 0xffff_ffff ? 1 : 0)]);
  }
}
