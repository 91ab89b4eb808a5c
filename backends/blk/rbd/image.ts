/**
 * An image in a Ceph cluster, on the main thread. Calls that wait for the cluster run on Deno's
 * threads for blocking calls.
 *
 * @module
 */

import { createEventfd, Errno, errnoName, type Fd } from "../../../src/linux/mod.ts";
import { type Ceph, exitAtOnce, loadCeph, Text, Variable } from "./librbd.ts";
import type { RbdName } from "./rbd_name.ts";

/** Time that an image has to close, in milliseconds: it gives its lock back. */
const CLOSE_LIMIT_MS = 2000;

/** librbd.h */
const EVENT_TYPE_EVENTFD = 2;
const RBD_LOCK_MODE_EXCLUSIVE = 0;

/** How an image is opened. */
export interface ImageOptions {
  /** Refuse writes, and take no lock. */
  readonly readOnly: boolean;
  /** Keep its exclusive lock: other clients do not get it when they ask for it. */
  readonly exclusive: boolean;
  /** The time that opening may take, in seconds. */
  readonly connectTimeout: number;
  /** The time after which a request fails, in seconds; 0: none. */
  readonly timeout: number;
}

/** What an errno means. */
type Reasons = Readonly<Record<number, string>>;

/** An image that is open. */
export class RbdImage {
  readonly #ceph: Ceph;
  readonly #resources: AsyncDisposableStack;
  readonly #size = new Variable();
  /** librbd's handle, for all threads. */
  readonly handle: bigint;
  /** An eventfd that librbd signals when requests are completed. */
  readonly completions: Fd;

  private constructor(
    ceph: Ceph,
    handle: bigint,
    completions: Fd,
    resources: AsyncDisposableStack,
  ) {
    this.#ceph = ceph;
    this.handle = handle;
    this.completions = completions;
    this.#resources = resources;
  }

  /**
   * Opens an image.
   *
   * @throws {Error} When it cannot be had; the message says why.
   */
  static async open(name: RbdName, options: ImageOptions): Promise<RbdImage> {
    const image = await within(RbdImage.#open(name, options), options.connectTimeout * 1000);
    if (image !== undefined) return image;
    throw new Error(`the cluster did not answer within ${options.connectTimeout} s`);
  }

  static async #open(name: RbdName, options: ImageOptions): Promise<RbdImage> {
    const ceph = loadCeph();
    const out = new Variable();
    await using resources = new AsyncDisposableStack();
    const client = `client.${name.id ?? "admin"}`;

    expect(ceph.rados_create(out.bytes, new Text(name.id ?? "admin").bytes), {}, client);
    const cluster = out.value;
    resources.defer(() => ceph.rados_shutdown(cluster));
    configure(ceph, cluster, name, options);
    expect(await ceph.rados_connect(cluster), {
      [Errno.ENOENT]: `there is no monitor or no key for ${client} in Ceph's configuration; name ` +
        "one by :conf=PATH, a key by :keyring=PATH",
      [Errno.EPERM]: `the cluster does not take the key of ${client}`,
      [Errno.EACCES]: `the cluster does not take the key of ${client}`,
      [Errno.ETIMEDOUT]: `the cluster did not answer within ${options.connectTimeout} s`,
    }, "the cluster does not let us in");

    const pool = new Text(name.pool);
    expect(await ceph.rados_ioctx_create(cluster, pool.address, out.address), {
      [Errno.ENOENT]: `there is no pool ${name.pool}`,
    }, `the pool ${name.pool}`);
    const io = out.value;
    resources.defer(() => ceph.rados_ioctx_destroy(io));
    ceph.rados_ioctx_set_namespace(io, new Text(name.namespace).bytes);

    const { snapshot } = name;
    // Closed after the image
    const completions = resources.use(createEventfd());
    const texts = [new Text(name.image), new Text(snapshot ?? "")];
    const [image, snap] = texts.map(({ address }) => address);
    const open = options.readOnly ? ceph.rbd_open_read_only : ceph.rbd_open;
    expect(await open(io, image, out.address, snapshot === undefined ? 0n : snap), {
      [Errno.ENOENT]: `there is no such image${snapshot === undefined ? "" : " or snapshot"}`,
      [Errno.EPERM]: `${client} may not open it`,
    }, "it cannot be opened");
    const handle = out.value;
    resources.defer(async () => void await ceph.rbd_close(handle));
    expect(
      ceph.rbd_set_image_notification(handle, completions.number, EVENT_TYPE_EVENTFD),
      {},
      "librbd takes no eventfd",
    );
    if (options.exclusive && !options.readOnly) {
      expect(await ceph.rbd_lock_acquire(handle, RBD_LOCK_MODE_EXCLUSIVE), {
        [Errno.EBUSY]: "another client keeps its exclusive lock",
        [Errno.EROFS]: "another client keeps its exclusive lock",
        [Errno.EINVAL]: "it has no exclusive lock; rbd feature enable POOL/IMAGE exclusive-lock",
      }, "its exclusive lock cannot be had");
    }
    return new RbdImage(ceph, handle, completions, resources.move());
  }

  /** Asks how large it is, in bytes. */
  async bytes(): Promise<number> {
    const result = await this.#ceph.rbd_get_size(this.handle, this.#size.address);
    expect(result, {}, "the size of the image cannot be read");
    return Number(this.#size.value);
  }

  /** Sets its size. */
  async resize(bytes: number): Promise<void> {
    const result = await this.#ceph.rbd_resize(this.handle, BigInt(bytes));
    expect(result, {}, "the image cannot be resized");
  }

  /** Closes it; gives up when the cluster does not answer. */
  async close(): Promise<void> {
    await within(this.#resources.disposeAsync(), CLOSE_LIMIT_MS);
  }
}

/** Sets a client up: the configuration's file, then what must be, then what the name says. */
function configure(
  ceph: Ceph,
  cluster: bigint,
  { conf, settings }: RbdName,
  { connectTimeout, timeout }: ImageOptions,
): void {
  const file = ceph.rados_conf_read_file(cluster, conf === undefined ? null : new Text(conf).bytes);
  // Without a configuration everything may be in the name
  if (conf !== undefined) expect(file, {}, `Ceph's configuration ${conf} cannot be read`);
  const ours = [
    // Its lines would come between ours; a log_file gets them
    ["log_to_stderr", "false"],
    ["err_to_stderr", "false"],
    // Requests go to the cluster on the thread that makes them, which takes less processor time than
    // one of librbd's own. Limits of librados would block that thread; the queue has limits
    ["rbd_non_blocking_aio", "false"],
    ["objecter_inflight_ops", "0"],
    ["objecter_inflight_op_bytes", "0"],
    ["client_mount_timeout", `${connectTimeout}`],
    ...timeout > 0 ? [["rados_osd_op_timeout", `${timeout}`]] : [],
  ];
  for (const [name, value] of [...ours, ...settings]) {
    const result = ceph.rados_conf_set(cluster, new Text(name).bytes, new Text(value).bytes);
    expect(result, {
      [Errno.ENOENT]: `Ceph has no setting ${name}`,
      [Errno.EINVAL]: `Ceph's setting ${name} does not take ${JSON.stringify(value)}`,
    }, `Ceph's setting ${name}`);
  }
}

/**
 * Expects that a call succeeded.
 *
 * @throws {Error} When it returned a negative errno, with what that means here.
 */
function expect(result: number, reasons: Reasons, otherwise: string): void {
  if (result >= 0) return;
  throw new Error(reasons[-result] ?? `${otherwise} (${errnoName(-result)})`);
}

/** Waits for work up to a time limit; undefined when it is over: the work continues. */
async function within<T>(work: Promise<T>, ms: number): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => {
    exitAtOnce();
    resolve(undefined);
  }, ms);
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
