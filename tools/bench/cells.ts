/** The cells of the table: what is measured, and against what. */

const STORES = {
  "null": "nowhere: requests are answered at once",
  "tmpfs": "a file on tmpfs",
  "disk": "a file on a disk, through the page cache",
  "disk-direct": "a file on a disk, by O_DIRECT",
  "nbd": "nbdkit's memory, by a Unix socket",
  "rbd": "an image in a Ceph cluster that keeps it in memory",
  "overlay": "an overlay that has all of the disk",
  "overlay-base": "an overlay that has nothing: all is read from its base",
} as const;

export type StoreName = keyof typeof STORES;

export interface Operation {
  /** Writes; reads otherwise. */
  isWrite: boolean;
  bytes: number;
  /** One place after the other; random places otherwise. */
  isSequential: boolean;
}

export const OPERATIONS = {
  read4k: { isWrite: false, bytes: 4096, isSequential: false },
  write4k: { isWrite: true, bytes: 4096, isSequential: false },
  seqread128k: { isWrite: false, bytes: 131_072, isSequential: true },
  seqwrite128k: { isWrite: true, bytes: 131_072, isSequential: true },
} as const satisfies Record<string, Operation>;

export type OperationName = keyof typeof OPERATIONS;

/** How a device is driven. */
export interface Drive {
  /** How many queues; ours has a thread for each. */
  queues: number;
  /** How many requests are in flight in each queue. */
  depth: number;
  /** The queues are packed ones. */
  isPacked?: boolean;
  /** Ours records what is in flight. */
  hasRecord?: boolean;
  /** How long ours may poll before it sleeps, in microseconds, if not as long as by default. */
  pollUs?: number;
  /** Ours serves a store in TypeScript in place of none, which answers so. */
  typescript?: "now" | "promise";
  /** The load generator polls; it sleeps otherwise, as a driver in a guest does. */
  isPolling?: boolean;
}

/** The most requests in flight in a queue. */
export const MAX_DEPTH = 128;
export const MAX_QUEUES = 2;

const DEPTHS = [1, 32, MAX_DEPTH] as const;

export interface Cell {
  /** Such as `null/read4k/qd32`. */
  name: string;
  store: StoreName;
  operation: OperationName;
  /** How ours is driven. */
  drive: Drive;
  /** What it is compared with: the peer, driven the same, or ours, driven otherwise. */
  against: "peer" | Drive;
}

/** The end of the name of a cell whose load generator polls. */
const POLLING_CLIENT = "client-polls";

/** Cells of the short version, each with both kinds of load generator. */
const QUICK = new Set([
  "null/read4k/qd1",
  "null/read4k/qd32",
  "null/read4k/qd128",
  "null/read4k/qd32/packed",
  "null/read4k/qd32/typescript",
  "null/read4k/qd32/promise",
  "tmpfs/read4k/qd32",
  "tmpfs/write4k/qd32",
  "tmpfs/read4k/qd32/2threads",
  "disk/read4k/qd32",
  "disk/write4k/qd32",
  "disk-direct/read4k/qd32",
  "disk-direct/write4k/qd32",
  "nbd/read4k/qd32",
  "nbd/write4k/qd32",
  "rbd/read4k/qd32",
  "rbd/write4k/qd32",
  "overlay/read4k/qd32",
  "overlay/write4k/qd32",
  "overlay-base/read4k/qd32",
]);

export function allCells(): Cell[] {
  return (Object.keys(STORES) as StoreName[]).flatMap((store) =>
    (Object.keys(OPERATIONS) as OperationName[]).flatMap((operation) =>
      DEPTHS.flatMap((depth) => cellsOf(store, operation, depth))
    )
  ).flatMap((cell) => [cell, withPollingClient(cell)]);
}

function withPollingClient({ name, drive, against, ...cell }: Cell): Cell {
  return {
    ...cell,
    name: `${name}/${POLLING_CLIENT}`,
    drive: { ...drive, isPolling: true },
    against: against === "peer" ? against : { ...against, isPolling: true },
  };
}

function cellsOf(store: StoreName, operation: OperationName, depth: number): Cell[] {
  const name = `${store}/${operation}/qd${depth}`;
  const drive = { queues: 1, depth };
  if (isElsewhere(store)) {
    // A write allocates
    const isMain = depth === 32 && operation.endsWith("4k") &&
      (operation === "read4k" || store !== "overlay-base");
    return isMain ? [{ name, store, operation, drive, against: "peer" }] : [];
  }
  const cells: Cell[] = [
    { name, store, operation, drive, against: "peer" },
    { name: `${name}/2q`, store, operation, drive: { queues: 2, depth }, against: "peer" },
  ];
  // The ring's format and the store know nothing of each other.
  if (store === "null" || store === "tmpfs") {
    const packed = { ...drive, isPacked: true };
    cells.push({ name: `${name}/packed`, store, operation, drive: packed, against: drive });
  }
  if (store === "null" && operation === "read4k" && depth === 1) {
    const sleeping = { ...drive, pollUs: 0 };
    cells.push({ name: `${name}/poll`, store, operation, drive, against: sleeping });
  }
  if (store === "null" && operation === "read4k" && depth === 32) {
    const recording = { ...drive, hasRecord: true };
    cells.push({ name: `${name}/inflight`, store, operation, drive: recording, against: drive });
    for (const [variant, typescript] of [["typescript", "now"], ["promise", "promise"]] as const) {
      const own = { ...drive, typescript };
      cells.push({ name: `${name}/${variant}`, store, operation, drive: own, against: drive });
    }
  }
  if (store !== "null" && operation.endsWith("4k") && depth === 32) {
    // As much in flight, on two threads.
    const divided = { queues: 2, depth: depth / 2 };
    cells.push({ name: `${name}/2threads`, store, operation, drive: divided, against: drive });
  }
  return cells;
}

/** Whether a store is more than a file. */
export function isElsewhere(store: StoreName): boolean {
  return store === "nbd" || store === "rbd" || store.startsWith("overlay");
}

export function quickCells(): Cell[] {
  return allCells().filter(({ name }) => QUICK.has(name.replace(`/${POLLING_CLIENT}`, "")));
}

/** The cells that a filter selects: a name, its beginning or end at a `/`, or with `*` for anything. */
export function selectCells(cells: readonly Cell[], filter: string): Cell[] {
  const wanted = filter.replaceAll(/^\/+|\/+$/g, "");
  const exact = cells.filter(({ name }) => name === wanted);
  if (exact.length > 0) return exact;
  const [text, any] = [/[.+?^${}()|[\]\\]/g, /\*/g];
  const whole = wanted.replace(text, "\\$&").replace(any, ".*");
  if (wanted.includes("*")) {
    const pattern = new RegExp(`^${whole}$`);
    return cells.filter(({ name }) => pattern.test(name));
  }
  const pattern = new RegExp(`(^|/)${whole}(/|$)`);
  return cells.filter(({ name }) => pattern.test(name));
}
