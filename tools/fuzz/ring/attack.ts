/** What overwrites a queue of a served device. */
import {
  DriverQueue,
  packedDescriptorFlags,
  type PackedDriverQueue,
  type VirtioDriver,
  writeDescriptor,
} from "../../../src/frontend/mod.ts";
import { drainEventfd, setNonblocking } from "../../../src/linux/mod.ts";
import { libc } from "../../../src/linux/libc.ts";
import type { Random } from "../../lib/random.ts";

const { NEXT, WRITE, INDIRECT, AVAIL, USED } = packedDescriptorFlags;

/** Fills an eventfd and makes it block, so that a write to it waits. */
function fillAndBlock(fd: number): void {
  drainEventfd(fd);
  libc.write(fd, new Uint8Array(new BigUint64Array([2n ** 64n - 2n]).buffer), 8);
  setNonblocking(fd, false);
}

/** Whether part `i` of the `count` parts of a chain that is nearly right is device-writable. */
export type IsWritable = (i: number, count: number) => boolean;

/** What overwrites a queue. It points the device only at memory that nothing else lives in. */
export class Attack {
  readonly #scratch: number;
  readonly #scratchBytes: number;
  #place = 0;

  constructor(
    readonly random: Random,
    readonly driver: VirtioDriver,
    readonly queue: number,
    readonly isWritable: IsWritable,
  ) {
    const { guestAddress, bytes } = driver.memory.regions[1].handle;
    this.#scratch = guestAddress;
    this.#scratchBytes = bytes;
    // Headers to find by chance, of every type.
    const u8 = driver.memory.regions[1].u8;
    for (let at = 0; at + 16 <= u8.length; at += 16) {
      u8[at] = random.pick([0, 1, 4, 8, 11, 13, random.u32()]);
      u8[at + 8] = random.u32();
    }
  }

  /** Overwrites a number of things, without waiting for the device. */
  run(times: number): void {
    const queue = this.driver.queues[this.queue];
    // Signalling it would wait, for ever but for this driver.
    const isBlocked = this.random.chance(1, 4);
    if (isBlocked) fillAndBlock(queue.handle.callFd);
    // A driver that was reset begins again.
    this.#place = 0;
    this.#forget(queue);
    for (let i = 0; i < times; i++) {
      if (queue instanceof DriverQueue) this.#split(queue);
      else this.#packed(queue);
      if (this.random.chance(1, 4)) queue.kick();
    }
    queue.kick();
    if (isBlocked) setNonblocking(queue.handle.callFd, true);
  }

  /** What right requests left in the ring points at memory that others may have by now. */
  #forget({ size, handle }: DriverQueue | PackedDriverQueue): void {
    const { buffer, offset } = this.driver.memory.locate(handle.descriptorGpa, size * 16);
    // Descriptors of either kind begin with the address.
    const halves = new BigUint64Array(buffer, offset, size * 2);
    for (let i = 0; i < size; i++) halves[i * 2] = BigInt(this.#scratch);
  }

  #split({ raw, size }: DriverQueue): void {
    const random = this.random;
    const u16 = () => random.chance(1, 4) ? random.u32() & 0xffff : random.below(size + 2);
    const slot = random.below(size);
    switch (random.below(16)) {
      case 0:
        return void (raw.availableIndex = random.chance(1, 4) ? u16() : raw.availableIndex + 1);
      case 1:
        return raw.setAvailable(slot, u16());
      case 2:
        return void (raw.availableFlags = u16());
      case 3:
        return void (raw.usedEvent = u16());
      case 4:
        return raw.setUsed(slot, random.u32(), random.u32());
      case 5:
        return void (raw.usedIndex = u16());
      case 6:
        return void (raw.availableEvent = u16());
      case 7:
      case 8:
        return raw.setDescriptor(slot, { ...this.#part(), flags: this.#flags(), next: u16() });
      case 9:
        return this.#table(u16);
      default: {
        // A request, nearly right.
        const count = Math.min(random.between(1, 4), size);
        for (let i = 0; i < count; i++) {
          const isLast = i === count - 1;
          raw.setDescriptor((slot + i) % size, {
            ...this.#part(i === 0 ? 16 : undefined),
            flags: (isLast ? 0 : NEXT) | (this.isWritable(i, count) ? WRITE : 0),
            next: (slot + i + 1) % size,
          });
        }
        raw.push(slot);
        if (random.chance(1, 8)) raw.push(slot); // while it is in flight, with luck
        return;
      }
    }
  }

  #packed({ raw, size }: PackedDriverQueue): void {
    const random = this.random;
    const u16 = () => random.chance(1, 4) ? random.u32() & 0xffff : random.below(size + 2);
    const owner = () => random.pick([0, AVAIL, USED, AVAIL | USED]);
    switch (random.below(12)) {
      case 0:
        return void (raw.driverEvent = { offWrap: u16(), flags: random.below(5) });
      case 1:
        return void (raw.deviceEvent = { offWrap: u16(), flags: random.below(5) });
      case 2:
      case 3:
        return raw.setDescriptor(random.below(size), {
          ...this.#part(),
          flags: this.#flags() | owner(),
          id: u16(),
        });
      case 4:
        return this.#table(u16);
      default: {
        const count = Math.min(random.between(1, 4), size);
        const id = random.below(size);
        for (let i = count - 1; i >= 0; i--) {
          const place = (this.#place + i) % (2 * size);
          raw.setDescriptor(place % size, {
            ...this.#part(i === 0 ? 16 : undefined),
            flags: (place < size ? AVAIL : USED) | (i < count - 1 ? NEXT : 0) |
              (this.isWritable(i, count) ? WRITE : 0),
            id,
          });
        }
        this.#place = (this.#place + count) % (2 * size);
      }
    }
  }

  /** An entry of what may be used as an indirect table. */
  #table(u16: () => number): void {
    const at = 16 * this.random.below(Math.floor(this.#scratchBytes / 16));
    writeDescriptor(this.driver.memory, this.#scratch + at, {
      ...this.#part(),
      flags: this.#flags(),
      next: u16(),
    });
  }

  #flags(): number {
    const random = this.random;
    return random.chance(1, 8) ? random.u32() & 0xffff : random.pick([0, 1, 2, 3, INDIRECT, 7]);
  }

  /** Where a buffer is: in memory that nothing else lives in, over its edges, or nowhere. */
  #part(wanted?: number): { gpa: bigint; bytes: number } {
    const random = this.random;
    const bytes = wanted ?? random.pick([
      ...[0, 1, 16, 512, 16 * random.below(300), random.below(this.#scratchBytes + 2)],
      ...[random.below(8192), random.below(600), random.chance(1, 4) ? random.u32() : 512],
    ]);
    const end = this.#scratch + this.#scratchBytes;
    switch (random.chance(1, 12) ? random.below(6) : 6) {
      case 0: // from the last page of the other region, where nothing is, into this one
        return { gpa: BigInt(this.#scratch - random.below(4096)), bytes };
      case 1:
        return { gpa: BigInt(end - random.below(3)), bytes };
      case 2:
        return {
          gpa: BigInt(
            end - bytes + random.below(3) - 1 < this.#scratch
              ? end
              : end - bytes + random.below(3) - 1,
          ),
          bytes,
        };
      case 3:
        return {
          gpa: random.pick([0n, 2n ** 32n - 1n, 2n ** 52n, 2n ** 64n - 1n]),
          bytes: bytes % 2 ** 16,
        };
      default:
        return {
          gpa: BigInt(this.#scratch + random.below(Math.max(this.#scratchBytes - bytes, 1))),
          bytes,
        };
    }
  }
}
