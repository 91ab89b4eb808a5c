import { initialBase, MAX_QUEUE_SIZE } from "../../virtqueue/mod.ts";
import {
  keptSignal,
  RequestError,
  type RequestHandler,
  type RequestHandlers,
} from "./request_handlers.ts";
import type { SessionRings } from "./rings.ts";
import type { SessionState } from "./state.ts";

/** Requests about rings. */
export function ringRequests(state: SessionState, rings: SessionRings): RequestHandlers {
  return {
    SET_VRING_NUM({ index, num }) {
      const ring = state.stoppedRing(index);
      const most = Math.min(ring.maxSize, MAX_QUEUE_SIZE);
      const anySize = state.isPacked; // virtio 1.3, 2.8.10.1
      if (num < 1 || num > most || !(anySize || (num & (num - 1)) === 0)) {
        const kind = anySize ? "" : " that is a power of 2";
        throw new RequestError(`Expected a queue size${kind} up to ${most}, got ${num}`);
      }
      ring.size = num;
    },
    async SET_VRING_ADDR(address) {
      const ring = state.ring(address.index);
      rings.locate(ring, address);
      await rings.reconfigure(ring, { address });
    },
    SET_VRING_BASE({ index, num }) {
      state.stoppedRing(index).base = num;
    },
    async GET_VRING_BASE({ index }) {
      const ring = state.ring(index);
      await rings.stop([ring]);
      ring.started = false;
      ring.kick?.close();
      ring.kick = undefined;
      return { index, num: ring.base ?? initialBase(state.isPacked) };
    },
    async SET_VRING_KICK({ index }, { fds: [fd] }) {
      const ring = state.ring(index);
      const kick = keptSignal(fd);
      const old = ring.kick;
      try {
        await rings.reconfigure(ring, { kick, started: true });
      } catch (error) {
        kick?.close();
        throw error;
      }
      old?.close();
    },
    SET_VRING_CALL: setSignal(state, "call"),
    SET_VRING_ERR: setSignal(state, "err"),
    SET_VRING_ENABLE: ({ index, num }) => rings.enable([state.ring(index)], num === 1),
  };
}

function setSignal(
  state: SessionState,
  which: "call" | "err",
): RequestHandler<"SET_VRING_CALL" | "SET_VRING_ERR"> {
  return async ({ index }, { fds }) => {
    const ring = state.ring(index);
    // These are a front-end's first words about a queue, as soon as it connects. A guest may be
    // waiting, so the queue's thread starts meanwhile.
    const { engine } = ring;
    const fd = keptSignal(fds[0]);
    const old = ring[which];
    ring[which] = fd;
    if (ring.running) {
      await engine.call({ kind: which, queue: index, fd: fd?.number ?? -1 });
    }
    old?.close();
  };
}
