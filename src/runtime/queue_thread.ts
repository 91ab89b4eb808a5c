/**
 * The queue thread: a Worker that blocks in one wait and runs an engine.
 *
 * @module
 */

import { receiveMessageOnPort } from "node:worker_threads";
import {
  drainEventfd,
  LinuxError,
  Reactor,
  signalEventfd,
  type ThreadReactor,
  UringReactor,
} from "../linux/mod.ts";
import { viewMemory } from "../memory/mod.ts";
import type { AnyDevice } from "../virtio/mod.ts";
import type { ThreadCommand, ThreadMessage, ThreadStart } from "./engine.ts";
import { QueueEngine } from "./queue_engine.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ThreadStart>) => void) | null;
  close(): void;
};

self.onmessage = ({ data }) => {
  self.onmessage = null;
  main(data).catch((error) => {
    const message: ThreadMessage = { kind: "failed", error };
    data.port.postMessage(message);
    data.port.close();
    self.close();
  });
};

async function main(start: ThreadStart): Promise<void> {
  const { port } = start;
  const closeId = await run(start);
  // Who asked for the end terminates this thread: what it holds is given back before that.
  const closed: ThreadMessage = { kind: "answer", id: closeId, result: 0 };
  port.postMessage(closed);
  port.close();
  self.close();
}

/** Runs the engine until it is closed; returns the number of the command that asked for that. */
async function run({ module, setup, memory, wakeFd, port }: ThreadStart): Promise<number> {
  const { default: device } = await import(module) as { default?: AnyDevice };
  if (device?.handlers === undefined) {
    throw new TypeError(`Expected a device as the default export of ${module}`);
  }
  const send = (message: ThreadMessage) => port.postMessage(message);
  using reactor: ThreadReactor = createReactor();
  let closeId: number | undefined;
  const engine = new QueueEngine(device, setup, viewMemory(memory), {
    watch: (fd, callback) => reactor.watch(fd, callback),
    watchSignals: (fd, callback) => reactor.watchSignals(fd, callback),
    signal: signalEventfd,
    io: reactor instanceof UringReactor ? reactor : undefined,
    defer: (callback) => reactor.defer(callback),
    emit: (event) => send({ kind: "event", event }),
  });

  using _commands = reactor.watch(wakeFd, () => {
    drainEventfd(wakeFd);
    for (;;) {
      // The event loop stands still while this thread blocks, so messages are
      // fetched when the eventfd says that there are some.
      const received = receiveMessageOnPort(port as never) as
        | { message: ThreadCommand }
        | undefined;
      if (received === undefined) return;
      const { id, command } = received.message;
      try {
        engine.execute(command, (result) => {
          if (command.kind === "close") closeId = id;
          else send({ kind: "answer", id, result });
        });
      } catch (error) {
        send({ kind: "refused", id, error: error as Error });
      }
    }
  });

  const glance = () => reactor.glance();
  send({ kind: "ready" });
  while (closeId === undefined) {
    // Promises of the device need the event loop; without any, blocking in the
    // wait itself saves two thread changes per wake-up.
    if (engine.isPending) await reactor.turnAsync();
    else reactor.turn();
    engine.poll(glance);
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
