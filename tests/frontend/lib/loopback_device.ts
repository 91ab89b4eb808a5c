/**
 * A network card that receives its own packets, in merged buffers: it posts receive buffers, takes
 * more if a packet needs them, makes a packet wait if there are too few, and untakes the posted ones
 * when their ring stops.
 *
 * @module
 */

import { type Chain, defineDevice, NOT_NOW, type QueueHandle } from "../../../mod.ts";

/** The bytes before the data of a packet, in its first buffer: the number of its buffers, a u16. */
export const HEADER_BYTES = 2;

/** The device. */
export default defineDevice({
  name: "loopback",
  deviceId: 42,
  about: "Receives what it sends",
  module: import.meta.url,
  queues: {
    receiveq: { about: "Buffers for packets that come", sender: "device" },
    transmitq: { about: "Packets that go" },
  },
  options: {
    posted: { type: "number", placeholder: "N", default: 8, about: "Receive buffers kept posted" },
  },
  handlers({ options, queues }) {
    const posted: Chain[] = []; // the oldest first

    function post(receiveq: QueueHandle, count: number): boolean {
      while (posted.length < count) {
        const chain = receiveq.take();
        if (chain === null) return false;
        posted.push(chain);
      }
      return true;
    }

    /** Posts buffers until they have room for a packet. */
    function makeRoom(receiveq: QueueHandle, bytes: number): boolean {
      const room = () => posted.reduce((sum, { writable }) => sum + writable.byteLength, 0);
      const before = posted.length;
      while (room() < bytes) {
        if (post(receiveq, posted.length + 1)) continue;
        while (posted.length > before) receiveq.untake(posted.pop()!);
        return false;
      }
      return true;
    }

    return {
      queues: {
        receiveq(queue) {
          post(queue, options.posted);
          for (const transmitq of queues.transmitq) transmitq.resume();
        },
        transmitq({ readable }, transmitq) {
          const [receiveq] = queues.receiveq;
          const packet = new Uint8Array(HEADER_BYTES + readable.byteLength);
          readable.read(0, packet.subarray(HEADER_BYTES));
          // Peeks at the next packet.
          const next = transmitq.take();
          if (next !== null) transmitq.untake(next);
          if (!makeRoom(receiveq, packet.length)) return NOT_NOW;
          let used = 0;
          for (let at = 0; at < packet.length; used++) {
            at += posted[used].writable.write(0, packet.subarray(at));
          }
          posted[0].writable.setU16(0, used);
          for (let left = packet.length; left > 0;) {
            const chain = posted.shift()!;
            const written = Math.min(left, chain.writable.byteLength);
            receiveq.complete(chain, written);
            left -= written;
          }
          receiveq.flush();
          post(receiveq, options.posted);
          return 0;
        },
      },
      onStop(queue) {
        while (queue.name === "receiveq" && posted.length > 0) queue.untake(posted.pop()!);
      },
      report: () => ({ posted: posted.length }),
    };
  },
});
