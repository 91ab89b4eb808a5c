/** The vhost-user codec: one message each. */
import {
  decodeHeader,
  type FrontendMessage,
  frontendMessages,
  HEADER_BYTES,
} from "../../src/vhost_user/mod.ts";

const region = (at: bigint) => ({
  guestAddress: at << 30n,
  size: 1n << 30n,
  userAddress: 0x7f00_0000_0000n + (at << 30n),
  mmapOffset: 0n,
});

/** Messages, and how many file descriptors each comes with. */
const messages: [FrontendMessage, fds: number][] = [
  [{ request: "SET_VRING_NUM", index: 0, num: 256 }, 0],
  [{
    request: "SET_VRING_ADDR",
    ...{ index: 0, flags: 0, descriptor: 1n << 40n, used: 2n << 40n, available: 3n << 40n },
    log: 0n,
  }, 0],
  [{ request: "SET_MEM_TABLE", regions: [0n, 1n, 2n, 3n].map(region) }, 4],
];

for (const [message, fds] of messages) {
  const encoded = frontendMessages.encode(message);
  const name = message.request;
  Deno.bench(`encode ${name}`, { group: "codec: encode" }, () => {
    frontendMessages.encode(message);
  });
  Deno.bench(`decode ${name}`, { group: "codec: decode" }, () => {
    const header = decodeHeader(encoded.subarray(0, HEADER_BYTES));
    frontendMessages.decode(header, encoded.subarray(HEADER_BYTES), fds);
  });
}

Deno.bench("encode the reply to GET_FEATURES", { group: "codec: encode" }, () => {
  frontendMessages.encodeReply("GET_FEATURES", { value: 0x1_7000_0000n });
});
