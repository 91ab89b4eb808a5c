/**
 * The block device: virtio 1.3, 5.2.
 *
 * @module
 */

import {
  array,
  bytes,
  type ConfigWrite,
  defineDevice,
  type DeviceNotice,
  OptionError,
  packed,
  struct,
  u16,
  u32,
  u64,
  u8,
} from "../../mod.ts";
import { Errno, errnoName } from "../../src/linux/mod.ts";
import { CacheMode, WRITE_BACK, WRITE_THROUGH } from "./cache_mode.ts";
import { checkBlkOptions } from "./check_options.ts";
import { FaultControl } from "./faults/fault_control.ts";
import type { FaultPlan } from "./faults/fault_plan.ts";
import { Limiter } from "./limits/limiter.ts";
import { LimitControl } from "./limits/limits.ts";
import { TokenPool } from "./limits/token_pool.ts";
import { guessGeometry } from "./geometry.ts";
import { MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS, Operation } from "./operation.ts";
import { type BlkOptions, blkOptions, sizeOf } from "./options.ts";
import { MAX_SEGMENTS, SECTOR_BYTES, VIRTIO_BLK_ID_BYTES } from "./request.ts";
import { REQUEST_KINDS, SharedState, typeName } from "./shared_state.ts";
import { StoreStack } from "./overlay/store_stack.ts";
import type { StoreControl, ThreadHost } from "./store.ts";
import { attachStore, openStore } from "./stores.ts";
import { parseZoned } from "./zoned/zoned_option.ts";
import { zonedConfig, zonedStore } from "./zoned/zoned_store.ts";
import { Zones } from "./zoned/zones.ts";

/**
 * The most parts of data in a request: with header and status they fill a queue of 128 descriptors,
 * which QEMU has by default.
 */
const SEG_MAX = 126;

/** A virtio block device on a disk image, a block device or memory. */
export default defineDevice({
  name: "blk",
  deviceId: 2, // virtio 1.3, 5.2.1
  about: "A disk",
  module: import.meta.url,
  panel: import.meta.resolve("./panel.ts"),

  // virtio 1.3, 5.2.2 Virtqueues
  queues: { requestq: { about: "Requests", family: "requestq", kinds: REQUEST_KINDS } },

  // virtio 1.3, 5.2.3 Feature bits
  features: {
    SIZE_MAX: { bit: 1, about: "The size of a segment has a limit" },
    SEG_MAX: { bit: 2, about: "The number of segments of a request has a limit" },
    GEOMETRY: { bit: 4, about: "Has a disk-style geometry" },
    RO: { bit: 5, about: "Is read-only" },
    BLK_SIZE: { bit: 6, about: "Tells its block size" },
    FLUSH: { bit: 9, about: "Can make writes durable on request" },
    TOPOLOGY: { bit: 10, about: "Tells how requests are best aligned" },
    CONFIG_WCE: { bit: 11, about: "Can toggle between write-back and write-through" },
    MQ: { bit: 12, about: "Has several queues" },
    DISCARD: { bit: 13, about: "Can give space back" },
    WRITE_ZEROES: { bit: 14, about: "Can write zeroes" },
    LIFETIME: { bit: 15, about: "Tells the wear of its storage" },
    SECURE_ERASE: { bit: 16, about: "Can erase beyond recovery" },
    ZONED: { bit: 17, about: "Is a zoned block device" },
  },

  // virtio 1.3, 5.2.4 Device configuration layout
  config: packed({
    capacity: u64("Size of the disk, in sectors of 512 bytes"),
    size_max: u32("Largest segment, in bytes", { feature: "SIZE_MAX" }),
    seg_max: u32("Most segments of a request", { feature: "SEG_MAX" }),
    geometry: struct(
      {
        cylinders: u16("Cylinders"),
        heads: u8("Heads"),
        sectors: u8("Sectors per track"),
      },
      "Disk-style geometry",
      { feature: "GEOMETRY" },
    ),
    blk_size: u32("Logical block size, in bytes", { feature: "BLK_SIZE" }),
    topology: struct(
      {
        physical_block_exp: u8("Logical blocks per physical block, as a power of 2"),
        alignment_offset: u8("First aligned logical block"),
        min_io_size: u16("Suggested smallest request, in logical blocks"),
        opt_io_size: u32("Suggested largest request, in logical blocks; 0: none"),
      },
      "How requests are best aligned",
      { feature: "TOPOLOGY" },
    ),
    writeback: u8("1: write-back, 0: write-through", { feature: "CONFIG_WCE", access: "rw" }),
    unused0: u8("Padding"),
    num_queues: u16("Number of queues", { feature: "MQ" }),
    max_discard_sectors: u32("Largest segment of a discard, in sectors", { feature: "DISCARD" }),
    max_discard_seg: u32("Most segments of a discard", { feature: "DISCARD" }),
    discard_sector_alignment: u32("How discards are best aligned, in sectors", {
      feature: "DISCARD",
    }),
    max_write_zeroes_sectors: u32("Largest segment of a write zeroes, in sectors", {
      feature: "WRITE_ZEROES",
    }),
    max_write_zeroes_seg: u32("Most segments of a write zeroes", { feature: "WRITE_ZEROES" }),
    write_zeroes_may_unmap: u8("1: write zeroes can give space back", { feature: "WRITE_ZEROES" }),
    unused1: bytes(3, "Padding"),
    max_secure_erase_sectors: u32("Largest segment of a secure erase, in sectors", {
      feature: "SECURE_ERASE",
    }),
    max_secure_erase_seg: u32("Most segments of a secure erase", { feature: "SECURE_ERASE" }),
    secure_erase_sector_alignment: u32("How secure erases are best aligned, in sectors", {
      feature: "SECURE_ERASE",
    }),
    zoned: struct(
      {
        zone_sectors: u32("Size of a zone, in sectors"),
        max_open_zones: u32("Most open zones"),
        max_active_zones: u32("Most active zones"),
        max_append_sectors: u32("Largest append, in sectors"),
        write_granularity: u32("Unit of sequential writes, in bytes"),
        model: u8("0: not zoned, 1: host-managed, 2: host-aware"),
        unused2: array(u8("Padding"), 3, "Padding"),
      },
      "Zones",
      { feature: "ZONED" },
    ),
  }),

  options: blkOptions,
  operand: "blkFile",
  checkOptions: ([options], [given]) => checkBlkOptions(options, given),

  // virtio 1.3, 5.2.5 Device Initialization
  async open({ options, config, announceConfig, fence, post, log }) {
    const { numQueues = Math.min(navigator.hardwareConcurrency, 256), serial = "" } = options;
    expectSerial(serial);
    const limits = new LimitControl(options, numQueues, () => post("limits"));
    await using resources = new AsyncDisposableStack();
    let resized = () => {}; // the size is read below
    const plain = resources.use(await openStore(options, { log, resized: () => resized() }));
    const blockBytes = expectBlockSize(options, plain);
    expectSize(plain.bytes(), blockBytes, options.blkFile, plain.kind === "file");
    const zones = options.zoned === undefined
      ? undefined
      : new Zones(parseZoned(options.zoned, plain.bytes(), blockBytes));
    let store: StoreControl = zones === undefined ? plain : zonedStore(plain, zones);
    const { abilities } = store;

    const state = new SharedState(numQueues);
    state.capacitySectors = store.bytes() / SECTOR_BYTES;
    const unmap = abilities.unmap && options.discard === "unmap";
    const discard = abilities.discard && options.discard === "unmap";
    const alignSectors = Math.max(abilities.physicalBlockBytes, blockBytes) / SECTOR_BYTES;
    const writeThrough = startsWriteThrough(options, store);
    const cacheMode = new CacheMode(config, writeThrough ? WRITE_THROUGH : WRITE_BACK);
    const faults = new FaultControl(options.faults, {
      blockBytes: abilities.logicalBlockBytes,
      put: (faults) => post({ faults }),
      log,
    });
    const geometry = guessGeometry(
      state.capacitySectors,
      blockBytes / SECTOR_BYTES,
      store.firstBytes,
    );

    /** Looks at the store's size again, after setting it if one is given. */
    async function resize(wanted?: number): Promise<Resized> {
      const before = Number(config.capacity) * SECTOR_BYTES;
      if (wanted !== undefined && store.resize === undefined) {
        throw new TypeError(`Expected no size: the ${store.kind} has its own`);
      }
      const size = wanted ?? store.bytes();
      expectSize(size, blockBytes);
      const served = state.capacitySectors;
      try {
        // Requests behind the new end are refused and drained before the file is cut.
        state.capacitySectors = Math.min(served, size / SECTOR_BYTES);
        if (state.capacitySectors < served) await fence();
        if (wanted !== undefined) await store.resize!(wanted);
      } catch (error) {
        state.capacitySectors = served;
        throw error;
      }
      state.capacitySectors = size / SECTOR_BYTES;
      config.capacity = BigInt(size / SECTOR_BYTES);
      // Always announced: the command makes the driver read the config again.
      announceConfig();
      return { before, bytes: size };
    }

    /** One after the other. */
    let changing: Promise<unknown> = Promise.resolve();
    const inTurn = <T>(change: () => Promise<T>): Promise<T> => {
      const changed = changing.then(change);
      changing = changed.catch(() => {});
      return changed;
    };
    const resizeInTurn = (wanted?: number) => inTurn(() => resize(wanted));
    resized = () =>
      void resizeInTurn().catch((error) => log(`${options.blkFile}: ${error.message}`));

    /** Moves the disk to a new overlay. */
    async function snapshot(body: unknown): Promise<Record<string, unknown>> {
      if (zones !== undefined) throw new TypeError("Expected a disk without zones");
      const { overlayOf, takeSnapshot } = await import("./overlay/snapshot.ts");
      const path = overlayOf(body);
      const hasLost = () => state.lostErrno !== 0;
      const name = options.blkFile ?? "";
      store = opened.use(
        await takeSnapshot({ store, name, options, log, post, fence, hasLost }, path),
      );
      log(`The disk goes on in ${path}; to start it again: --overlay=${path}`);
      return { overlay: path };
    }

    const opened = resources.move();
    return {
      offer: {
        // There is no such limit, and SeaBIOS 1.16 computes with size_max * seg_max in 16 bits
        SIZE_MAX: false,
        GEOMETRY: geometry !== undefined,
        RO: abilities.readOnly,
        CONFIG_WCE: abilities.durable && !abilities.readOnly,
        MQ: numQueues > 1,
        DISCARD: discard,
        WRITE_ZEROES: abilities.writeZeroes,
        LIFETIME: abilities.lifetime ?? false,
        SECURE_ERASE: abilities.secureErase ?? false,
        ZONED: zones !== undefined,
      },
      // All but MQ, whose queues would be missing, and ZONED, whose writes would go anywhere
      honour: {
        SIZE_MAX: true,
        GEOMETRY: true,
        RO: true,
        CONFIG_WCE: true,
        DISCARD: true,
        WRITE_ZEROES: true,
        LIFETIME: true,
        SECURE_ERASE: true,
      },
      queues: { requestq: numQueues },
      ...abilities.isOneThread && { threads: "one" },
      config: {
        capacity: BigInt(state.capacitySectors),
        seg_max: SEG_MAX,
        geometry,
        blk_size: blockBytes,
        topology: {
          physical_block_exp: Math.log2(Math.max(abilities.physicalBlockBytes / blockBytes, 1)),
          min_io_size: Math.min(Math.ceil(abilities.minIoBytes / blockBytes), 0xffff),
          opt_io_size: Math.floor(abilities.optimalIoBytes / blockBytes),
        },
        writeback: writeThrough ? WRITE_THROUGH : WRITE_BACK,
        num_queues: numQueues,
        ...discard && {
          max_discard_sectors: MAX_DISCARD_SECTORS,
          max_discard_seg: MAX_SEGMENTS,
          discard_sector_alignment: alignSectors,
        },
        ...abilities.writeZeroes && {
          max_write_zeroes_sectors: MAX_WRITE_ZEROES_SECTORS,
          max_write_zeroes_seg: MAX_SEGMENTS,
          write_zeroes_may_unmap: Number(unmap),
        },
        ...abilities.secureErase && {
          max_secure_erase_sectors: MAX_DISCARD_SECTORS,
          max_secure_erase_seg: MAX_SEGMENTS,
          secure_erase_sector_alignment: alignSectors,
        },
        ...zones && { zoned: zonedConfig(zones.layout) },
      },
      shared: {
        store: store.handle,
        state: state.memory,
        readOnly: abilities.readOnly,
        discard,
        unmap,
        secureErase: abilities.secureErase ?? false,
        lifetime: abilities.lifetime ?? false,
        writeThrough,
        zones: zones && { layout: zones.layout, memory: zones.memory },
        serial,
        limits: { queues: numQueues, memory: limits.pool.memory },
        faults: faults.shared,
      },
      onFeatures: (features) => cacheMode.negotiated(features),
      onReset: () => cacheMode.reset(),
      onConfigRead: () => cacheMode.read(),
      onConfigWrite({ fields }: ConfigWrite) {
        const writeback = fields.find(({ name }) => name === "writeback");
        if (writeback !== undefined) cacheMode.check(writeback.after[0]);
      },
      // A copy that was restored or sent again says what the driver believes too
      onConfigWritten({ fields, migration }: ConfigWrite) {
        cacheMode.read();
        // Earlier writes are volatile, and the driver will send no more flushes
        const writeback = fields.find(({ name }) => name === "writeback");
        if (!migration && writeback?.after[0] === WRITE_THROUGH) post("flush");
      },
      async onReload() {
        const { before, bytes } = await resizeInTurn();
        log(
          bytes === before
            ? `The disk still has ${bytes} bytes`
            : `The disk has ${bytes} bytes now, before it had ${before}`,
        );
      },
      queries: {
        heat: {
          about: "Reads and writes by their place on the disk",
          run: () => state.heat(),
        },
      },
      commands: {
        resize: {
          about: 'Announce the size of the file, or set that of a file or memory: {"size": "2G"}',
          run: async (body) => await resizeInTurn(sizeOf(body)),
        },
        snapshot: {
          about: 'Go on in a new overlay, and leave the disk as it is: {"overlay": "PATH"}',
          run: (body) => inTurn(() => snapshot(body)),
        },
        ...limits.commands,
        ...faults.commands,
      },
      report: () => ({
        store: { kind: store.kind, readOnly: abilities.readOnly, ...store.describe() },
        capacity: {
          sectors: state.capacitySectors,
          bytes: state.capacitySectors * SECTOR_BYTES,
        },
        mode: cacheMode.name,
        ...limits.report(),
        ...faults.report(),
        ...state.counts(),
      }),
      [Symbol.asyncDispose]: () => opened.disposeAsync(),
    };
  },

  async handlers({ shared, features, config, memory, queues, notice, io, watch, keep }) {
    const state = new SharedState(shared.state);
    const host: ThreadHost = {
      ...{ memory, io, watch, keep, notice },
      done: (request, result) => operation.done(request, result),
      flush: () => queues.requestq.forEach((queue) => queue.flush()),
    };
    const stack = await StoreStack.attach(
      host,
      (host) => attachStore(shared.store, host),
      shared.faults && { setup: shared.faults, thread: () => queues.requestq[0].index },
    );
    const operation = new Operation({
      ...shared,
      ...{ store: stack.store, keep },
      state,
      features,
      config,
      zones: shared.zones && new Zones(shared.zones.layout, shared.zones.memory),
      onNotZoned: () => notice(NOT_ZONED),
      onFailure: (type, errno) =>
        notice(
          state.lostErrno === errno
            ? lostNotice(errno)
            : failureNotice(type, errno, shared.store.kind === "module"),
        ),
    });
    const pool = new TokenPool(shared.limits.queues, shared.limits.memory);
    let limiter: Limiter | undefined;
    const limit = () => {
      if (pool.isOn) limiter ??= new Limiter({ pool, queues: queues.requestq, watch });
      operation.limiter = pool.isOn ? limiter : undefined;
      limiter?.resume();
    };
    limit();
    return {
      queues: { requestq: (chain, queue) => operation.handle(chain, queue) },
      onMessage(message: unknown) {
        if (message === "flush") return operation.flush();
        if (message === "limits") return limit();
        if (StoreStack.isStep(message)) return stack.step(message, operation, queues.requestq);
        stack.setFaults((message as { faults: FaultPlan }).faults);
      },
      kindOf: (chain, queue) => operation.kindOf(chain, queue),
      onStart: (queue) => operation.start(queue),
      onBatch: () => stack.store.submit?.(),
      onCancel: () => stack.store.cancel?.(),
      close() {
        limiter?.[Symbol.dispose]();
        stack.store.close?.();
      },
    };
  },
});

/** For a driver that uses a zoned disk as if it had no zones. */
const NOT_ZONED: DeviceNotice = {
  what: "the driver does not know zones",
  why: "it did not acknowledge ZONED, so each request of it fails",
  remedy:
    "QEMU's vhost-user-blk hides the bit; its vhost-user-test-device (QEMU 11) does not, and " +
    "Linux has known it since 6.4",
};

/** For writes that could not be made durable, and each flush after. */
function lostNotice(errno: number): DeviceNotice {
  return {
    what: `writes of the guest may be lost (${errnoName(errno)})`,
    why: "they could not be made durable, and the kernel tells that once",
    remedy: "flushes fail until the disk is served again: repair the storage, then start vhostd " +
      "again and check the guest's data",
  };
}

/** The notice for the user about a request that failed. */
function failureNotice(type: number, errno: number, isModule: boolean): DeviceNotice {
  const isFull = errno === Errno.ENOSPC || errno === Errno.EDQUOT;
  const what = `${typeName(type)} requests fail with ${errnoName(errno)}`;
  if (isModule) return { what, why: "the store refuses them", remedy: "the guest sees I/O errors" };
  return {
    what,
    why: isFull ? "the host has no room for the image" : "the host refuses them",
    remedy: isFull
      ? "make room on its file system; until then the guest sees I/O errors"
      : "the guest sees I/O errors; the kernel's log (dmesg) may tell more",
  };
}

/** The outcome of a resize, in bytes. */
interface Resized {
  before: number;
  bytes: number;
}

function expectSerial(serial: string): void {
  if (serial.length > VIRTIO_BLK_ID_BYTES || !/^[\x20-\x7e]*$/.test(serial)) {
    throw new OptionError(
      `--serial takes up to ${VIRTIO_BLK_ID_BYTES} printable ASCII characters, got ${
        JSON.stringify(serial)
      }`,
    );
  }
}

/** Whether the options say that a disk begins write-through. */
function startsWriteThrough({ cache }: BlkOptions, { kind, abilities }: StoreControl): boolean {
  if (cache !== "writethrough" && cache !== "directsync") return false;
  if (abilities.durable) return true;
  throw new Error(`--cache=${cache} needs a store that can flush, which the ${kind} cannot`);
}

function expectBlockSize({ blockSize }: BlkOptions, { kind, abilities }: StoreControl): number {
  const { logicalBlockBytes: least } = abilities;
  if (blockSize === undefined) return least;
  if (!Number.isInteger(Math.log2(blockSize))) {
    throw new OptionError(`--block-size takes a power of 2, got ${blockSize}`);
  }
  if (blockSize < least) {
    throw new Error(
      `--block-size takes at least ${least}, which the ${kind} has, got ${blockSize}`,
    );
  }
  return blockSize;
}

function expectSize(bytes: number, blockBytes: number, path?: string, isFile = false): void {
  const name = path ?? "The disk";
  // Sectors and offsets are numbers; beyond this, one stands for several
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new RangeError(`${name}: Expected a size below 8 PiB (2^53 bytes), got ${bytes} bytes`);
  }
  if (bytes > 0 && bytes % blockBytes === 0) return;
  const remedy = isFile
    ? `truncate -s %${blockBytes} makes it longer, by zeroes`
    : `the next larger one is ${Math.ceil(bytes / blockBytes) * blockBytes}`;
  throw new RangeError(
    bytes === 0
      ? `${name}: Expected a size of at least ${blockBytes} bytes, got an empty one`
      : `${name}: Expected a size that is a multiple of ${blockBytes} bytes, got ${bytes}; ${remedy}`,
  );
}
