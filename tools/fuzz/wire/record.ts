/**
 * Records what a front-end says: listens on one socket, passes everything on to a back-end on
 * another, and prints the messages when the front-end is gone.
 *
 *     deno run -A tools/fuzz/wire/record.ts LISTEN_PATH BACKEND_PATH > recording.json
 */
import {
  closeAll,
  type Fd,
  isEventfd,
  UnixConnection,
  UnixListener,
} from "../../../src/linux/mod.ts";
import { inspectMemoryFile } from "../../../src/linux/file/memory_file.ts";
import { decodeHeader, HEADER_BYTES } from "../../../src/vhost_user/mod.ts";
import { type RecordedMessage, recordMessage } from "./recording.ts";

/** Passes messages on until the stream ends. */
async function pass(
  from: UnixConnection,
  to: UnixConnection,
  seen: (bytes: Uint8Array, fds: readonly Fd[]) => void,
): Promise<void> {
  for (;;) {
    const head = new Uint8Array(HEADER_BYTES);
    const { bytes, fds } = await from.receive(head);
    if (bytes < HEADER_BYTES) break;
    const message = new Uint8Array(HEADER_BYTES + decodeHeader(head).size);
    message.set(head);
    if (message.length > HEADER_BYTES) await from.receive(message.subarray(HEADER_BYTES));
    seen(message, fds);
    await to.send(message, fds.map((fd) => fd.number));
    closeAll(fds);
  }
  to.shutdown();
}

function kindOf({ number }: Fd): string {
  if (isEventfd(number)) return "eventfd";
  const { kind, bytes } = inspectMemoryFile(number);
  return kind === "file" ? `memory:${bytes}` : "socket";
}

const [listenPath, backendPath] = Deno.args;
const listener = UnixListener.listen(listenPath);
const frontend = (await listener.accept())!;
const backend = UnixConnection.connect(backendPath);
const messages: RecordedMessage[] = [];
await Promise.all([
  pass(frontend, backend, (bytes, fds) => messages.push(recordMessage(bytes, fds.map(kindOf)))),
  pass(backend, frontend, () => {}).catch(() => {}),
]);
console.log(JSON.stringify(messages, null, 2));
Deno.exit(0);
