/**
 * The queue thread: a Worker that blocks in one wait and runs engines.
 *
 * @module
 */

import { countSignals, LinuxError } from "../linux/mod.ts";
import { Reactor, type ThreadReactor } from "../linux/wait/reactor.ts";
import { Signaller } from "../linux/wait/signaller.ts";
import { UringReactor } from "../linux/wait/uring_reactor.ts";
import { viewMemory } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type {
  EngineMessage,
  EngineStart,
  ThreadMessage,
  ThreadRequest,
  ThreadStart,
} from "./thread_transport.ts";
import type { EngineCommand } from "./data_plane/messages.ts";
import { loadDefault } from "./load_default.ts";
import { Poller } from "./data_plane/poller.ts";
import { QueueEngine } from "./data_plane/queue_engine.ts";

/**
 * The most turns of the microtask queue for promises before the whole event loop turns, which takes
 * longer: those of a device that waits for nothing have settled by then.
 */
const MICROTASK_TURNS = 16;

declare const self: {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: ThreadMessage): void;
  close(): void;
};

/** Requests that have come and are not carried out yet. */
const requests: ThreadRequest[] = [];
/** Number of requests that have come. */
let received = 0;
/** Resolves when the next one comes. */
let arrival = Promise.withResolvers<void>();

self.onmessage = ({ data }: MessageEvent<ThreadStart>) => {
  self.onmessage = ({ data }: MessageEvent<ThreadRequest>) => {
    requests.push(data);
    received++;
    arrival.resolve();
  };
  // The thread is terminated once it has answered, so it releases everything before.
  run(data).catch((error): ThreadMessage => ({ kind: "ended", why: String(error) }))
    .then((message) => {
      self.postMessage(message);
      self.close();
    });
};

/** Runs engines until the last one has closed or failed; returns the message that says so. */
async function run({ wakeFd, posted }: ThreadStart): Promise<EngineMessage> {
  using reactor: ThreadReactor = createReactor();
  using signaller = new Signaller();
  const sent = new Int32Array(posted);
  /** By number; undefined for those that have ended. */
  const engines: (QueueEngine | undefined)[] = [];
  let poller: Poller | undefined;
  let last: EngineMessage | undefined;
  const send = (message: ThreadMessage) => self.postMessage(message);

  const begin = async ({ engine, module, setup, memory }: EngineStart) => {
    const device = (await loadDefault("device", module)).value as AnyDevice | undefined;
    if (device?.handlers === undefined) {
      throw new TypeError(`Expected a device as the default export of ${module}`);
    }
    poller ??= new Poller(setup.pollUs, setup.polling, navigator.hardwareConcurrency);
    const made = new QueueEngine(device, setup, viewMemory(memory), {
      poller,
      watch: (fd, readiness, callback) => reactor.watch(fd, readiness, callback),
      watchSignals: (fd, callback) => reactor.watchSignals(fd, callback),
      signal: (fd) => signaller.signal(fd),
      io: reactor instanceof UringReactor ? reactor : undefined,
      cancel: () => {
        if (reactor instanceof UringReactor) reactor.cancelOperations();
      },
      // A plain load: it is for the next chain, not for this moment.
      isAwaited: () => sent[0] !== (received | 0),
      defer: (callback) => reactor.defer(callback),
      emit: (event) => send({ kind: "event", engine, event }),
    });
    await made.ready;
    engines[engine] = made;
    send({ kind: "ready", engine });
  };

  /** Sends the message that an engine has ended by, or returns it if the engine was the last. */
  const end = (message: EngineMessage) => {
    engines[message.engine] = undefined;
    if (engines.every((engine) => engine === undefined)) last = message;
    else send(message);
  };

  const execute = (engine: number, id: number, command: EngineCommand) => {
    const refuse = (error: unknown) => {
      try {
        send({ kind: "refused", engine, id, error: error as Error });
      } catch {
        // A device can throw what cannot be copied.
        send({ kind: "refused", engine, id, error: new Error(String(error)) });
      }
    };
    try {
      engines[engine]!.execute(command, (result) => {
        if (command.kind === "close") end({ kind: "answer", engine, id, result: 0 });
        else send({ kind: "answer", engine, id, result });
      }, refuse);
    } catch (error) {
      refuse(error);
    }
  };

  let announced = 0;
  using _announcements = reactor.watch(wakeFd, "readable", () => {
    announced += countSignals(wakeFd);
  });
  /** The first engine for which the event loop must turn. */
  const pending = () => {
    for (let i = 0; i < engines.length; i++) if (engines[i]?.isPending) return engines[i];
  };
  const hasPending = () => {
    for (let i = 0; i < engines.length; i++) if ((engines[i]?.pending ?? 0) > 0) return true;
    return false;
  };
  const glance = () => {
    reactor.glance();
    return announced <= received && !hasPending();
  };
  while (last === undefined) {
    let engine = pending();
    if (engine?.hasPromises) {
      // One turn more, for the queue that publishes what they completed
      for (let left = MICROTASK_TURNS; left > 0 && hasPending(); left--) await null;
      await null;
    }
    const haveSettled = !hasPending();
    const haveCome = poller?.poll(glance) === true;
    // Their promises have their turn first, before the driver is asked to notify
    if (haveSettled && haveCome && announced <= received && hasPending()) continue;
    poller?.endPolling();
    if (requests.length > 0) {
      const request = requests.shift()!;
      if (request.kind === "command") execute(request.engine, request.id, request.command);
      else {
        await begin(request).catch((error) =>
          end({ kind: "failed", engine: request.engine, error })
        );
      }
    } else if (announced > received) {
      // The event loop brings requests, and it stands still while this thread blocks.
      arrival = Promise.withResolvers();
      await arrival.promise;
    } else if ((engine = pending()) !== undefined) {
      // Promises of the device need the event loop. What awaits those that settled goes on in one
      // turn of it, which takes a fraction of a wait; without any, blocking in the wait saves two
      // changes of threads per wake-up.
      if (engine.hasPromises) {
        engine.hasPromises = false;
        await new Promise<void>((resolve) => setImmediate(resolve));
      } else {
        await reactor.turnAsync();
      }
    } else {
      reactor.turn();
    }
  }
  return last;
}

/** The newest way to wait that this kernel allows. */
function createReactor(): ThreadReactor {
  try {
    return new UringReactor();
  } catch (error) {
    if (error instanceof LinuxError) return new Reactor();
    throw error;
  }
}
