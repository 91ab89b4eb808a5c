/** A hostile front-end's connection, from its first byte to its end. */
import { closeAll, UnixConnection } from "../../../src/linux/mod.ts";
import { libc } from "../../../src/linux/libc.ts";
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { type DescriptorPool, MEMORY_BYTES } from "./descriptors.ts";
import { LingeringSockets } from "./lingering.ts";
import { memoryAgain } from "./messages.ts";
import type { Message } from "./recording.ts";

const SHUT_WR = 1;

/** One connection in this many has lingering sockets: each costs a second. */
const LINGERING_CONNECTIONS = 100;
/** As many of them, and fewer than end a connection, so that its end is reached as well. */
const MOST_LINGERING = 3;

/** How a connection goes. */
const endings = [
  "every reply read",
  "every reply read",
  "every reply read",
  "no reply read",
  "closed in the middle",
] as const;

/**
 * Sends a sequence, and waits until the back-end is done with it where it reads the replies. An
 * orderly one has nothing wrong but the messages. Returns how many went out.
 */
export async function play(
  messages: readonly Message[],
  path: string,
  pool: DescriptorPool,
  random: Random,
  tally: Tally,
  isOrderly = false,
): Promise<number> {
  const connection = UnixConnection.connect(path);
  const ending = isOrderly ? "every reply read" : random.pick(endings);
  const isSlow = !isOrderly && random.chance(1, 40);
  const shrinks = !isOrderly &&
    messages.some(({ fds }) => fds.some((fd) => "kind" in fd && fd.kind === "shrinking memory"));
  // Near the end, for then it is mapped, if it is at all.
  const shrinkAt = shrinks && random.chance(1, 2)
    ? messages.length - random.below(Math.min(6, messages.length + 1))
    : -1;
  // Sometimes with sockets whose close blocks until the connection is over.
  using lingering = !isOrderly && random.chance(1, LINGERING_CONNECTIONS)
    ? new LingeringSockets()
    : undefined;
  let lingers = random.between(1, MOST_LINGERING);
  let sent = 0;
  try {
    for (const [i, { bytes, fds }] of messages.entries()) {
      if (i === shrinkAt) await shrink(pool, random, tally);
      if (lingering !== undefined && lingers > 0 && random.chance(1, 4)) {
        lingers--;
        // In the place of what belongs there, or where nothing does. One that was not sent is not
        // closed here: that would take as long.
        const fd = lingering.make();
        await connection.send(bytes, [fd.number]);
        fd.close();
        tally.add("lingering socket");
        sent++;
        continue;
      }
      if (random.chance(1, 20)) pool.block();
      const numbers = fds.map((fd) => pool.number(fd));
      if (isSlow) await sendSlowly(connection, bytes, numbers, random);
      else await connection.send(bytes, numbers);
      sent++;
    }
  } catch (error) {
    if ((error as { code?: string }).code !== "EPIPE") throw error;
    tally.add("ended by the back-end");
  }
  if (shrinkAt === messages.length) await shrink(pool, random, tally);
  if (shrinkAt >= 0 && random.chance(1, 2)) {
    sent += await useAgain(connection, pool, random, tally).catch(() => 0);
  }
  tally.add(isSlow ? `slow, ${ending}` : ending);
  if (ending === "every reply read") await readReplies(connection, tally);
  else if (ending === "no reply read") await turn();
  await connection.close();
  if (shrinkAt >= 0) pool.resize(MEMORY_BYTES);
  return sent;
}

async function shrink(pool: DescriptorPool, random: Random, tally: Tally): Promise<void> {
  // Once what was sent so far has been carried out, or before that.
  if (random.chance(3, 4)) await turn();
  pool.resize(random.pick([0, 4096, MEMORY_BYTES / 2]));
  tally.add("memory shrunk");
  if (random.chance(1, 2)) pool.kick();
}

/**
 * Uses memory that may be lost, gives it back its length, and takes it away and gives it again:
 * rings are to start on it then and not before.
 */
async function useAgain(
  connection: UnixConnection,
  pool: DescriptorPool,
  random: Random,
  tally: Tally,
): Promise<number> {
  const steps = memoryAgain(random);
  for (const { bytes, fds } of steps) {
    if (random.chance(1, 4)) pool.kick();
    if (random.chance(1, 3)) pool.resize(random.pick([0, 4096, MEMORY_BYTES, MEMORY_BYTES]));
    await connection.send(bytes, fds.map((fd) => pool.number(fd)));
  }
  tally.add("memory used again");
  return steps.length;
}

/** Gives the event loop a turn. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

async function sendSlowly(
  connection: UnixConnection,
  bytes: Uint8Array,
  fds: number[],
  random: Random,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const end = at + random.between(1, random.chance(1, 2) ? 3 : 64);
    await connection.send(bytes.subarray(at, end), at === 0 ? fds : []);
    at = end;
    await turn();
  }
}

/** Says that nothing more comes, and reads until the back-end has ended the connection. */
async function readReplies(connection: UnixConnection, tally: Tally): Promise<void> {
  libc.shutdown(connection.fd.number, SHUT_WR);
  const into = new Uint8Array(8192);
  for (;;) {
    const { bytes, fds } = await connection.receive(into);
    closeAll(fds);
    tally.add("bytes of replies", bytes);
    if (bytes < into.length) return;
  }
}
