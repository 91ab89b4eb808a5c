/**
 * The slots of a driver's ring: the descriptors of a split one, the buffer IDs of a packed one. A
 * chain in flight has one for each descriptor of the ring that it takes; its number is the first of
 * them.
 *
 * With VIRTIO_F_IN_ORDER slots are taken in their order and around, as virtio 1.3, 2.7.5 asks for,
 * else the slots freed last are taken first.
 *
 * @internal
 */
export class ChainSlots {
  readonly size: number;
  readonly inOrder: boolean;
  /** How many slots are in no chain. */
  free: number;
  /** How many chains are in flight. */
  inFlight = 0;
  /** The first slot of the next chain. */
  first = 0;
  /** The chain that was added first of those in flight; only in order. */
  oldest = 0;
  /** The slot behind each one, in a chain or in the list of free ones. */
  readonly links: Uint16Array<ArrayBuffer>;
  /** By chain in flight: how many slots it has; 0 if there is none. */
  readonly counts: Uint16Array<ArrayBuffer>;
  /** By chain in flight: how many bytes the device may write. */
  readonly writableBytes: Float64Array<ArrayBuffer>;
  /** By chain in flight: its last slot. */
  readonly #tails: Uint16Array<ArrayBuffer>;
  /** By chain in flight: its sequence number, modulo 2^32. */
  readonly #order: Uint32Array<ArrayBuffer>;
  #added = 0;

  /** All of them are free. */
  constructor(size: number, inOrder: boolean) {
    this.size = this.free = size;
    this.inOrder = inOrder;
    this.links = new Uint16Array(size);
    this.counts = new Uint16Array(size);
    this.writableBytes = new Float64Array(size);
    this.#tails = new Uint16Array(size);
    this.#order = new Uint32Array(size);
    this.reset();
  }

  /** Makes a chain in flight of `count` slots from the first free one to `last`. */
  add(last: number, count: number, writableBytes: number): number {
    const head = this.first;
    this.first = this.links[last];
    this.counts[head] = count;
    this.writableBytes[head] = writableBytes;
    this.#tails[head] = last;
    this.#order[head] = this.#added++;
    this.free -= count;
    this.inFlight++;
    return head;
  }

  /** Frees the slots of a chain; returns how many it had. */
  release(head: number): number {
    const count = this.counts[head];
    const tail = this.#tails[head];
    this.counts[head] = 0;
    if (this.inOrder) {
      this.oldest = this.links[tail];
    } else {
      this.links[tail] = this.first;
      this.first = head;
    }
    this.free += count;
    this.inFlight--;
    return count;
  }

  /** Whether a number that the device gave back is that of a chain in flight. */
  isInFlight(head: number): boolean {
    return head < this.size && this.counts[head] > 0;
  }

  /** The chains in flight, in the order in which they were added. */
  heads(): number[] {
    const heads = Array.from(this.counts.keys()).filter((head) => this.counts[head] > 0);
    const age = (head: number) => this.#added - this.#order[head] >>> 0;
    return heads.sort((a, b) => age(b) - age(a));
  }

  /** Frees all of them. */
  reset(): void {
    for (let i = 0; i < this.size; i++) this.links[i] = i + 1 < this.size ? i + 1 : 0;
    this.counts.fill(0);
    this.free = this.size;
    this.inFlight = this.first = this.oldest = 0;
  }
}
