/** A program: answers every question for an IPv4 address, on UDP port 53 of 127.0.0.1. */
const ANSWER = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 0, 77];

const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 53 });
console.log("answers");
for await (const [query, from] of socket) {
  // RFC 1035, 4.1: a header of 12 bytes, a name that ends with a zero byte, type and class
  const end = query.indexOf(0, 12) + 5;
  const isIPv4 = query[end - 3] === 1;
  const answer = Uint8Array.of(...query.subarray(0, end), ...isIPv4 ? ANSWER : []);
  answer.set([0x84, 0, 0, 1, 0, isIPv4 ? 1 : 0, 0, 0, 0, 0], 2);
  await socket.send(answer, from);
}
