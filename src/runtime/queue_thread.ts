/**
 * The queue thread: a Worker that blocks in one wait and runs an engine.
 *
 * @module
 */

import { countSignals, LinuxError } from "../linux/mod.ts";
import { Reactor, type ThreadReactor } from "../linux/wait/reactor.ts";
import { Signaller } from "../linux/wait/signaller.ts";
import { UringReactor } from "../linux/wait/uring_reactor.ts";
import { viewMemory } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type { ThreadCommand, ThreadMessage, ThreadStart } from "./thread_transport.ts";
import { QueueEngine } from "./data_plane/queue_engine.ts";

declare const self: {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: ThreadMessage): void;
  close(): void;
};

/** Commands that have come and are not carried out yet. */
const commands: ThreadCommand[] = [];
/** Number of commands that have come. */
let received = 0;
/** Resolves when the next one comes. */
let arrival = Promise.withResolvers<void>();

self.onmessage = ({ data }: MessageEvent<ThreadStart>) => {
  self.onmessage = ({ data }: MessageEvent<ThreadCommand>) => {
    commands.push(data);
    received++;
    arrival.resolve();
  };
  // The thread is terminated once it has answered, so it releases everything before.
  run(data).then(
    (id): ThreadMessage => ({ kind: "answer", id, result: 0 }),
    (error): ThreadMessage => ({ kind: "failed", error }),
  ).then((message) => {
    self.postMessage(message);
    self.close();
  });
};

/** Runs the engine until it is closed; returns the number of the closing command. */
async function run({ module, setup, memory, wakeFd, posted }: ThreadStart): Promise<number> {
  const { default: device } = await import(module) as { default?: AnyDevice };
  if (device?.handlers === undefined) {
    throw new TypeError(`Expected a device as the default export of ${module}`);
  }
  const send = (message: ThreadMessage) => self.postMessage(message);
  using reactor: ThreadReactor = createReactor();
  using signaller = new Signaller();
  let closeId: number | undefined;
  const sent = new Int32Array(posted);
  const engine = new QueueEngine(device, setup, viewMemory(memory), {
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
    emit: (event) => send({ kind: "event", event }),
  });

  const execute = ({ id, command }: ThreadCommand) => {
    const refuse = (error: unknown) => {
      try {
        send({ kind: "refused", id, error: error as Error });
      } catch {
        // A device can throw what cannot be copied.
        send({ kind: "refused", id, error: new Error(String(error)) });
      }
    };
    try {
      engine.execute(command, (result) => {
        if (command.kind === "close") closeId = id;
        else send({ kind: "answer", id, result });
      }, refuse);
    } catch (error) {
      refuse(error);
    }
  };
  let announced = 0;
  using _announcements = reactor.watch(wakeFd, "readable", () => {
    announced += countSignals(wakeFd);
  });
  const glance = () => {
    reactor.glance();
    return announced <= received;
  };
  send({ kind: "ready" });
  while (closeId === undefined) {
    engine.poll(glance);
    if (commands.length > 0) {
      execute(commands.shift()!);
    } else if (announced > received) {
      // The event loop brings commands, and it stands still while this thread blocks.
      arrival = Promise.withResolvers();
      await arrival.promise;
    } else if (engine.isPending) {
      // Promises of the device need the event loop, and so does what awaits the last of them, once;
      // without any, blocking in the wait itself saves two thread changes per wake-up.
      const { hasSettled } = engine;
      engine.hasSettled = false;
      if (!await reactor.turnAsync() && hasSettled) engine.hasSettled = true;
    } else {
      reactor.turn();
    }
  }
  return closeId;
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
