/** Front-ends that are too much rather than wrong. */
import { UnixConnection } from "../../../src/linux/mod.ts";
import { frontendMessages, protocolFeatureMask } from "../../../src/vhost_user/mod.ts";
import type { Tally } from "../frame.ts";

/** How long the back-end may read on while its answers are not read. */
const FLOOD_MS = 50;
/** Fewer than a socket holds, and more. */
const FEW_MESSAGES = 100, FLOOD_MESSAGES = 20_000;
/** More than a backlog holds. */
const STORM_CONNECTIONS = 400;

/** Asks and asks, and never reads an answer: the back-end must stop reading, and hold nothing. */
export async function flood(path: string, tally: Tally): Promise<void> {
  const connection = UnixConnection.connect(path);
  await connection.send(
    frontendMessages.encode({
      request: "SET_PROTOCOL_FEATURES",
      value: protocolFeatureMask("CONFIG", "REPLY_ACK"),
    }),
  );
  const question = frontendMessages.encode({
    request: "GET_CONFIG",
    offset: 0,
    size: 5,
    flags: 0,
    data: new Uint8Array(5),
  });
  let timer: ReturnType<typeof setTimeout> | undefined;
  const asking = (async () => {
    try {
      for (let i = 0; i < FLOOD_MESSAGES; i++) {
        if (i === FEW_MESSAGES) timer = setTimeout(() => connection.shutdown(), FLOOD_MS);
        await connection.send(question);
        tally.add("flood: questions");
      }
      return true;
    } catch {
      return false; // the connection was ended below
    }
  })();
  if (await asking) throw new Error("Expected the back-end to stop reading, got it reading on");
  clearTimeout(timer);
  await connection.close();
}

/** Connects more often than anybody is waited for, and says nothing. */
export async function storm(path: string, tally: Tally): Promise<void> {
  const connections: UnixConnection[] = [];
  for (let i = 0; i < STORM_CONNECTIONS; i++) {
    try {
      connections.push(UnixConnection.connect(path));
    } catch (error) {
      if ((error as { code?: string }).code !== "EAGAIN") throw error;
      tally.add("storm: turned away");
    }
  }
  tally.add("storm: waited", connections.length);
  for (const connection of connections) await connection.close();
}
