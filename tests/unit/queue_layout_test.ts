import { assertEquals } from "@std/assert";
import { layOutQueues } from "../../src/virtio/queue_layout.ts";

const about = "q";
const names = (slots: ReturnType<typeof layOutQueues>) =>
  slots.map(({ index, name, ordinal }) => `${index} ${name} ${ordinal}`);

Deno.test("layOutQueues() lists queues of a family in turn, and others once at their position", () => {
  const console = {
    receiveq: { about },
    transmitq: { about },
    portReceiveq: { about, family: "port" },
    portTransmitq: { about, family: "port" },
    last: { about },
  };
  assertEquals(names(layOutQueues(console, { port: 2 })), [
    "0 receiveq 0",
    "1 transmitq 0",
    "2 portReceiveq 0",
    "3 portTransmitq 0",
    "4 portReceiveq 1",
    "5 portTransmitq 1",
    "6 last 0",
  ]);
  assertEquals(names(layOutQueues(console, { port: 0 })).at(-1), "2 last 0");
});

Deno.test("layOutQueues() has one queue of each kind by default", () => {
  assertEquals(names(layOutQueues({ requestq: { about, family: "requestq" } })), ["0 requestq 0"]);
});
