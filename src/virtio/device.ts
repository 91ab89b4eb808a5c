/**
 * The device contract: a device's definition and its behaviour.
 *
 * A device is a value. Its definition names its queues, its feature bits, its config fields and its
 * options; from it follow the wire layout, the command line, `vhostd describe` and the record. It
 * has two halves:
 *
 * - the *control half*, {@linkcode DeviceDefinition.open}, runs once on the main thread: it opens
 *   files, says what is offered, and answers config writes and commands;
 * - the *data half*, {@linkcode DeviceDefinition.handlers}, runs on each queue thread (or on the
 *   main thread, when the device says so) and handles chains.
 *
 * They share numbers and plain values (`shared`), and the config space.
 *
 * @module
 */

import type { Readiness, ThreadIo, Watch } from "../linux/mod.ts";
import type { Chain } from "../virtqueue/mod.ts";
import type { ConfigLayout, ConfigValues, ConfigView } from "./config/layout.ts";
import type { ConfigWrite } from "./config/write.ts";
import type { FeatureDefinition } from "./features.ts";
import type { DeviceRequests } from "./device_requests.ts";
import type { OptionDefinition, OptionValues } from "./options.ts";

/** A queue of a device type, or with `family` several of one kind. */
export interface QueueDefinition {
  /** What it carries, in a few words. */
  readonly about: string;
  /**
   * The most descriptors that the driver may give it, a power of 2.
   *
   * @default {1024}
   */
  readonly size?: number;
  /**
   * `driver`: the driver sends requests, and the queue's handler is called with each. `device`: the
   * driver supplies buffers, and the device takes them ({@linkcode QueueHandle.take}) when it has
   * something to say.
   *
   * @default {"driver"}
   */
  readonly sender?: "driver" | "device";
  /**
   * The name of the family that it belongs to. There are as many queues of each kind of a family as
   * the control half says ({@linkcode OpenDevice.queues}). They come in turn: `receiveq` and
   * `transmitq` of one family are receiveq 0, transmitq 0, receiveq 1, transmitq 1.
   *
   * @default {none: there is one queue of this kind}
   */
  readonly family?: string;
  /**
   * The most promises of its handler that may be pending, up to 32768. At this limit the queue
   * takes no more chains until one settles.
   *
   * @default {256}
   */
  readonly mostPending?: number;
  /**
   * The kinds of its requests, for latencies and traces: {@linkcode DataHalf.kindOf} says which one
   * a request is of. The first one stands for a request of which it says nothing.
   *
   * @default {["request"]}
   */
  readonly kinds?: readonly string[];
}

/** The most descriptors of a queue whose definition does not say. */
export const DEFAULT_QUEUE_SIZE: number = 1024;

/** The most pending promises of a queue whose definition does not say. */
export const DEFAULT_MOST_PENDING: number = 256;

/** The result of a handler that completes its chain later, by {@linkcode QueueHandle.complete}. */
export const LATER: number = -1;

/**
 * The result of a handler that cannot take its chain now. The chain stays in the ring, and the queue
 * pauses until {@linkcode QueueHandle.resume}: its handler is not called, and the driver is asked
 * for no notifications. Chains that the handler took besides have to be untaken before.
 */
export const NOT_NOW: number = -2;

/**
 * As {@linkcode NOT_NOW}, where a callback of `watch` will resume the queue: the thread then blocks in
 * its wait. With `NOT_NOW` its event loop turns meanwhile, for a timer or a promise that resumes it,
 * which takes several times as long per wake-up.
 */
export const UNTIL_READY: number = -3;

/**
 * The number of bytes written to a chain, {@linkcode LATER}, {@linkcode NOT_NOW},
 * {@linkcode UNTIL_READY}, or a promise of the number of bytes.
 */
export type HandlerResult = number | Promise<number>;

/** A queue, as the data half sees it. */
export interface QueueHandle {
  /** The index that the driver knows it by. */
  readonly index: number;
  /** The name in the definition. */
  readonly name: string;
  /** Its place among the queues of its name: 0, or its number in its family. */
  readonly ordinal: number;
  /** Whether the ring runs. */
  readonly isRunning: boolean;
  /**
   * Takes the next chain; null when there is none. Where the device is the sender, the handler is
   * called when there are chains again. Where the driver is, a handler may take chains besides its
   * own, to complete them, or to untake them after a look at their size.
   */
  take(): Chain | null;
  /**
   * Puts back the chain that was taken last: the driver does not learn of it, and the next `take`
   * returns it. Several chains are untaken in the reverse order.
   *
   * @throws {Error} When another chain was taken after it, or it was completed.
   */
  untake(chain: Chain): void;
  /** Ends a pause that {@linkcode NOT_NOW} began. */
  resume(): void;
  /**
   * Completes a chain with the number of bytes that were written to it. What is completed within a
   * handler is published with its batch; completions from elsewhere are published by
   * {@linkcode QueueHandle.flush}.
   */
  complete(chain: Chain, written: number): void;
  /** Publishes completions, and notifies the driver if it wants that. */
  flush(): void;
  /**
   * Takes no further chain until those in flight are completed: for a request that takes long, so
   * that a stop waits for that one and not for many of its kind.
   */
  hold(): void;
  /**
   * Ends the queue because of what the driver did, as an error that a handler throws: its error
   * descriptor is signalled, and the record says why. For queues whose sender is the device.
   *
   * @param chain The chain that was wrong; the driver does not get it back.
   */
  fail(error: Error, chain?: Chain): void;
}

/** The names of a record, as strings. */
export type Names<T> = Extract<keyof T, string>;

/** Queue definitions by name. */
export type Queues = Readonly<Record<string, QueueDefinition>>;
/** Feature definitions by name. */
export type Features = Readonly<Record<string, FeatureDefinition>>;
/** Option definitions by name. */
export type Options = Readonly<Record<string, OptionDefinition>>;

/** The names of the families of queues. */
export type Families<Q> = Extract<
  { [K in keyof Q]: Q[K] extends { family: infer N } ? N : never }[keyof Q],
  string
>;

/** What a queue's handler is: see {@linkcode QueueDefinition.sender}. */
export type QueueHandler<D> = D extends { sender: "device" }
  /** The driver supplied buffers. */
  ? (queue: QueueHandle) => void
  /** The driver sent a request. */
  : (chain: Chain, queue: QueueHandle) => HandlerResult;

/** The data half: a handler per queue, and hooks. */
export interface DataHalf<Q extends Queues = Queues> {
  /** The handler of each queue, by its name in the definition. */
  readonly queues: { readonly [K in Names<Q>]: QueueHandler<Q[K]> };
  /**
   * Returns the kind of a request, as an index into {@linkcode QueueDefinition.kinds}. Called for a
   * sample of the requests, when they are completed: the chain's parts may be gone.
   */
  kindOf?(chain: Chain, queue: QueueHandle): number;
  /** Called after each batch of chains of a queue, before the batch is published. */
  onBatch?(queue: QueueHandle): void;
  /** A ring starts. */
  onStart?(queue: QueueHandle): void;
  /** The front-end enabled or disabled a ring that is started: see {@linkcode QueueHandle.isRunning}. */
  onEnable?(queue: QueueHandle): void;
  /**
   * A ring is about to stop: complete or untake the chains in flight soon. Where the device is the
   * sender, this is done for it when the hook returns, or its promise settles: buffers go back
   * unused, and those that later ones have overtaken are completed with 0 bytes.
   */
  onStop?(queue: QueueHandle): void | Promise<void>;
  /** A stop is overdue, and its chains are about to be abandoned: fail those that can be failed. */
  onCancel?(): void;
  /** The device is reset, or its front-end is gone: all rings are stopped. */
  onReset?(): void | Promise<void>;
  /** Returns what another process needs to continue; structured-cloneable. All rings are stopped. */
  save?(): unknown;
  /** Takes over what {@linkcode DataHalf.save} returned. All rings are stopped. */
  load?(state: unknown): void | Promise<void>;
  /** Returns what this thread adds to the record: JSON, or nothing. */
  report?(): Record<string, unknown> | undefined;
  /** Takes a message of the control half; returns the answer or a promise of it. */
  onMessage?(message: unknown): unknown;
  /** The thread ends. */
  close?(): void;
}

/** A fault that the person who runs the device should know of. */
export interface DeviceNotice {
  /** The kind of fault, in a few words: a further one of the same kind is only counted. */
  readonly what: string;
  /** What was expected, and what came. */
  readonly why: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** The context of the data half. */
export interface DataContext<
  Q extends Queues,
  F extends Features,
  L extends ConfigLayout,
  O extends Options,
  S,
> {
  /** The values of the device's options. */
  readonly options: OptionValues<O>;
  /** {@linkcode OpenDevice.shared}: a copy on a queue thread, the same object on the main thread. */
  readonly shared: S;
  /** The config space, live, shared with the control half. */
  readonly config: ConfigView<L>;
  /** The features that the driver acknowledged, by name, live; a legacy driver lacks VERSION_1. */
  readonly features: { readonly [K in Names<F> | "VERSION_1"]: boolean };
  /** The queues that run on this thread, by name. */
  readonly queues: { readonly [K in Names<Q>]: readonly QueueHandle[] };
  /** Guest memory: indexes of parts are indexes into `u8`, and offsets from the address `base`. */
  readonly memory: {
    readonly u8: Uint8Array<ArrayBuffer>;
    readonly base: number;
    /**
     * Makes memory of the device's own beside the guest's, to which parts may point too. It lasts
     * as long as the device. Returns its index.
     *
     * @throws {RangeError} When all calls of a device took 4 GiB.
     */
    scratch(bytes: number): number;
  };
  /**
   * Sends a message to the control half's {@linkcode OpenDevice.onMessage}.
   *
   * @param message A value that can be copied (structured clone).
   * @returns Whether it was sent; it is not while 256 messages wait for the control half.
   */
  post(message: unknown): boolean;
  /**
   * Prints a fault for the person who runs the device. The first of each kind is a line, further
   * ones are counted, so a guest can cause as many as it likes.
   */
  notice(notice: DeviceNotice): void;
  /**
   * Calls `callback` whenever a file descriptor is ready, until the watch is disposed of; not while
   * the watch is paused.
   */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
  /**
   * Runs the event loop of the thread, and so timers and Deno's own I/O, while a promise is pending.
   * Otherwise it runs only while a promise of a handler or hook is pending or a queue is paused:
   * blocking is faster. The device limits how many promises it keeps.
   *
   * @returns A promise that settles as the given one does.
   */
  keep<T>(promise: Promise<T>): Promise<T>;
  /**
   * The io_uring that this thread waits with; undefined on the main thread, and where the kernel
   * allows none.
   */
  readonly io: ThreadIo | undefined;
}

/** The context of the control half. */
export interface ControlContext<L extends ConfigLayout, O extends Options> {
  /** The values of the device's options. */
  readonly options: OptionValues<O>;
  /** The config space, live, shared with the data half. */
  readonly config: ConfigView<L>;
  /** This instance, of those that one process serves: its number, from 0, and its name. */
  readonly instance: { readonly number: number; readonly name: string };
  /** Tells the driver that config space changed, as soon as its front-end can pass that on. */
  announceConfig(): void;
  /**
   * Resolves when every request that the data half took before is completed (not buffers of queues
   * whose sender is the device). Later requests see what was stored in shared memory before.
   *
   * @throws {Error} When that takes longer than 20 seconds.
   */
  fence(): Promise<void>;
  /**
   * Sends a message to the data half: {@linkcode DataHalf.onMessage} is called on each of its
   * threads, once `open` has returned. A failure is printed too, so the answers need not be awaited.
   *
   * @param message A value that can be copied (structured clone).
   * @returns The answers of the threads: one where all queues run on one.
   * @throws What a thread throws; {@linkcode RangeError} while 256 messages wait for an answer;
   * {@linkcode Error} when there is none within 30 seconds.
   */
  post(message: unknown): Promise<unknown[]>;
  /** Prints a line for the person who runs the device. */
  log(message: string): void;
  /**
   * Calls `callback` whenever a file descriptor is ready, until the watch is disposed of; not while
   * the watch is paused.
   */
  watch(fd: number, readiness: Readiness, callback: () => void): Watch;
}

/** A command that the control socket offers as `POST /NAME`, or a query as `GET /NAME`. */
export interface DeviceCommand {
  /** What it does, in a few words. */
  readonly about: string;
  /**
   * Runs it with the request's body (undefined when there was none).
   *
   * @returns The answer, which is sent as JSON.
   * @throws {TypeError} or {RangeError} when the body is wrong: the answer has status 400.
   */
  run(body: unknown): unknown | Promise<unknown>;
}

/** The control half of a device that was opened. */
export interface OpenDevice<Q extends Queues, F extends Features, L extends ConfigLayout, S>
  extends Partial<AsyncDisposable> {
  /** Which of the device's features are offered; those not named are. */
  readonly offer?: { readonly [K in Names<F>]?: boolean };
  /**
   * Features that are not offered, but that a driver may keep. A driver that negotiated with an
   * earlier start of the device (with other options, say) keeps its features, since the front-end
   * does not ask it again; the data half answers requests that it cannot carry out. A driver with
   * any other feature is not served.
   *
   * @default {none}
   */
  readonly honour?: { readonly [K in Names<F>]?: boolean };
  /**
   * How many queues each kind of a family has, by the family's name.
   *
   * @default {1}
   */
  readonly queues?: { readonly [K in Families<Q>]?: number };
  /**
   * `one`: all queues share one thread and its objects, as with {@linkcode DeviceDefinition.threads}.
   *
   * @default {the definition's}
   */
  readonly threads?: "one";
  /** What config space holds at the start. */
  readonly config?: ConfigValues<L>;
  /**
   * What the data half gets: plain values, numbers of descriptors and `SharedArrayBuffer`s, since
   * it is copied to queue threads. Functions, open files and instances of classes cannot be.
   */
  readonly shared?: S;
  /** The driver acknowledged features: which of the device's own, by name. */
  onFeatures?(features: { readonly [K in Names<F>]: boolean }): void;
  /**
   * The driver writes config space. Called before anything is applied; throwing refuses the write.
   */
  onConfigWrite?(write: ConfigWrite): void;
  /** The driver wrote config space; the new values are in place. */
  onConfigWritten?(write: ConfigWrite): void;
  /** The driver is about to read config space. */
  onConfigRead?(offset: number, bytes: number): void;
  /** The device is reset: everything is as it was when it was opened. */
  onReset?(): void;
  /** Takes a message of the data half. What it throws is printed. */
  onMessage?(message: unknown): void | Promise<void>;
  /** SIGHUP: reload what the device serves, such as the size of an image. */
  onReload?(): void | Promise<void>;
  /** Handlers of the requests of vhost-user that belong to this type of device. */
  readonly requests?: DeviceRequests;
  /**
   * What the control socket answers to `GET /NAME`, without a body. A `ReadableStream` of bytes is
   * sent as it is, until it ends or the client is gone.
   */
  readonly queries?: Readonly<Record<string, DeviceCommand>>;
  /** Commands for the control socket. */
  readonly commands?: Readonly<Record<string, DeviceCommand>>;
  /**
   * Returns what the device adds to the record: JSON. A BigInt becomes a number, or text where no
   * number holds it; an error stands in its place.
   */
  report?(): Record<string, unknown>;
}

/** A device: see {@linkcode defineDevice}. */
export interface DeviceDefinition<
  Q extends Queues = Queues,
  F extends Features = Features,
  L extends ConfigLayout = ConfigLayout,
  O extends Options = Options,
  S = unknown,
> {
  /** The name on the command line. */
  readonly name: string;
  /** The device type's number: virtio 1.3, 5 Device Types. */
  readonly deviceId: number;
  /** What it is, in one line. */
  readonly about: string;
  /** `import.meta.url` of the module whose default export this is: queue threads import it. */
  readonly module: string;
  /**
   * The URL of the module with its panel for `vhostd web`, as `import.meta.resolve("./panel.ts")`;
   * `@vhostd/vhostd/web` says what that exports.
   *
   * @default {none}
   */
  readonly panel?: string;
  /** The queues, in the order of their indexes. */
  readonly queues: Q;
  /** The device type's own feature bits. */
  readonly features?: F;
  /** The layout of config space. */
  readonly config?: L;
  /** The device's own command line flags. */
  readonly options?: O;
  /**
   * Where its queues run. `each`: the queues of a family are distributed over up to `--threads`
   * threads; queues with the same place in their families share one. `one`: all queues share one
   * thread and its objects. `main`: they run on the main thread, and share the objects of the
   * control half too.
   *
   * @default {"each"}
   */
  readonly threads?: "each" | "one" | "main";
  /** The name of an option that the command line takes without its flag too: `vhostd blk disk.img`. */
  readonly operand?: string;
  /**
   * The name of an option that is given once for each instance of the device: instances are served
   * by one process, each on a socket of its own, and share one queue thread and its objects. The
   * option's value is the path of the instance's socket; after a comma, more may follow.
   *
   * @default {none: the device has one instance}
   */
  readonly instances?: string;
  /**
   * Checks the options before anything is opened, a socket for the device included: those of each
   * instance, in their order, or of the only one.
   *
   * @param given Those of them that were given, without defaults.
   * @throws {OptionError} When options contradict each other, or those of another instance.
   */
  checkOptions?(
    instances: readonly OptionValues<NoInfer<O>>[],
    given: readonly Partial<OptionValues<NoInfer<O>>>[],
  ): void;
  /** Opens the control half. An error is shown to the person who runs the device. */
  open?(
    context: ControlContext<L, O>,
  ):
    | OpenDevice<Q, F, L, S>
    | Promise<OpenDevice<Q, F, L, S>>;
  /**
   * Makes the data half; called once on each thread that runs queues of the device. Front-ends wait
   * until a promise of it settles, and so does the thread: nothing is watched meanwhile.
   */
  handlers(context: DataContext<Q, F, L, O, S>): DataHalf<Q> | Promise<DataHalf<Q>>;
}

/** A device of any kind, as the framework handles it. */
// deno-lint-ignore no-explicit-any
export type AnyDevice = DeviceDefinition<any, any, any, any, any>;
