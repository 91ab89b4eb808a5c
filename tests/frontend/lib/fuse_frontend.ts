/**
 * A front-end in its own process that sends a file of its own FUSE server, which does not answer
 * FLUSH and GETATTR.
 *
 *     deno run fuse_frontend.ts DIRECTORY SOCKET
 *
 * It mounts at the directory, sends the file with each request that takes a descriptor and with one
 * that takes none, and prints a line of JSON for each reply. The end of stdin ends it and unmounts.
 *
 * Sources: linux/fuse.h, fuse(4), mount(2).
 *
 * @module
 */

import {
  type FrontendMessage,
  frontendMessages,
  protocolFeatureMask,
} from "../../../src/frontend/mod.ts";
import { check } from "../../../src/linux/errors.ts";
import { pinnedBuffer, UnixConnection } from "../../../src/linux/mod.ts";

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  mount: { parameters: ["buffer", "buffer", "buffer", "u64", "buffer"], result: "i32" },
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  open_async: {
    name: "open",
    parameters: ["pointer", "i32", "u32"],
    result: "i32",
    nonblocking: true,
  },
  read_async: {
    name: "read",
    parameters: ["i32", "pointer", "u32"],
    result: "i32",
    nonblocking: true,
  },
  write: { parameters: ["i32", "buffer", "u32"], result: "i32" },
});

const O_RDWR = 2, O_CLOEXEC = 0o2000000;
const MNT_FORCE = 1, MNT_DETACH = 2;
const LOOKUP = 1, GETATTR = 3, OPEN = 14, FLUSH = 25, INIT = 26;
const NO_REPLY = [2, 36, 42]; // FORGET, INTERRUPT, BATCH_FORGET
const ENOSYS = 38;
const REQUEST_BYTES = 2 ** 17;
const FILE_MODE = 0o100666, DIRECTORY_MODE = 0o40755;
const FILE_NODE = 2n, FILE_BYTES = 2n ** 20n;
/** `struct fuse_attr` in bytes, and where its mode is. */
const ATTR_BYTES = 88, ATTR_MODE = 60;

const [directory, socketPath] = Deno.args;
const text = (value: string) => new TextEncoder().encode(`${value}\0`);

const device = check(libc.open(text("/dev/fuse"), O_RDWR | O_CLOEXEC, 0), "open");
check(
  libc.mount(
    text("fuse"),
    text(directory),
    text("fuse"),
    0n,
    text(`fd=${device},rootmode=40000,user_id=0,group_id=0,allow_other`),
  ),
  "mount",
);

let isSilent = false;

function putAttr(view: DataView, at: number, node: bigint): void {
  view.setBigUint64(at, node, true);
  view.setBigUint64(at + 8, FILE_BYTES, true);
  view.setUint32(at + ATTR_MODE, node === FILE_NODE ? FILE_MODE : DIRECTORY_MODE, true);
  view.setUint32(at + ATTR_MODE + 4, 1, true); // nlink
}

/** The reply to a request, without its header; undefined for an error, null for no reply. */
function answer(opcode: number, node: bigint): Uint8Array | undefined | null {
  if (NO_REPLY.includes(opcode)) return null;
  if (isSilent && (opcode === FLUSH || opcode === GETATTR)) return null;
  const body = (bytes: number, fill: (view: DataView) => void) => {
    const view = new DataView(new ArrayBuffer(bytes));
    fill(view);
    return new Uint8Array(view.buffer);
  };
  switch (opcode) {
    case INIT: // struct fuse_init_out
      return body(64, (view) => {
        view.setUint32(0, 7, true);
        view.setUint32(4, 31, true);
        view.setUint32(20, 4096, true); // max_write
      });
    case LOOKUP: // struct fuse_entry_out
      return body(40 + ATTR_BYTES, (view) => {
        view.setBigUint64(0, FILE_NODE, true);
        putAttr(view, 40, FILE_NODE);
      });
    case GETATTR: // struct fuse_attr_out
      return body(16 + ATTR_BYTES, (view) => putAttr(view, 16, node));
    case OPEN: // struct fuse_open_out
      return body(16, () => {});
    default:
      return opcode === FLUSH ? new Uint8Array() : undefined;
  }
}

async function serveFiles(): Promise<void> {
  const buffer = new DataView(pinnedBuffer(REQUEST_BYTES));
  const pointer = Deno.UnsafePointer.of(buffer);
  while (await libc.read_async(device, pointer, REQUEST_BYTES) > 0) {
    const body = answer(buffer.getUint32(4, true), buffer.getBigUint64(16, true));
    if (body === null) continue;
    const reply = new DataView(new ArrayBuffer(16 + (body?.length ?? 0)));
    reply.setUint32(0, reply.byteLength, true);
    reply.setInt32(4, body === undefined ? -ENOSYS : 0, true);
    reply.setBigUint64(8, buffer.getBigUint64(8, true), true);
    if (body !== undefined) new Uint8Array(reply.buffer).set(body, 16);
    libc.write(device, new Uint8Array(reply.buffer), reply.byteLength);
  }
}

void serveFiles();
const name = new Uint8Array(pinnedBuffer(4096));
name.set(text(`${directory}/file`));
const file = check(
  await libc.open_async(Deno.UnsafePointer.of(name), O_RDWR | O_CLOEXEC, 0),
  "open",
);
isSilent = true;

const requests: FrontendMessage[] = [
  { request: "GET_FEATURES" },
  { request: "SET_VRING_KICK", index: 0, noFd: false },
  {
    request: "ADD_MEM_REG",
    region: { guestAddress: 0n, size: 4096n, userAddress: 0n, mmapOffset: 0n },
  },
  {
    request: "SET_INFLIGHT_FD",
    ...{ mmapSize: 4096n, mmapOffset: 0n, numQueues: 1, queueSize: 16 },
  },
  { request: "SET_BACKEND_REQ_FD" },
];
const value = protocolFeatureMask("CONFIGURE_MEM_SLOTS", "INFLIGHT_SHMFD", "BACKEND_REQ");
const negotiation = frontendMessages.encode({ request: "SET_PROTOCOL_FEATURES", value });
for (const message of requests) {
  const connection = UnixConnection.connect(socketPath);
  await connection.send(negotiation);
  await connection.send(frontendMessages.encode(message, { needReply: true }), [file]);
  const head = new Uint8Array(12);
  const { bytes } = await connection.receive(head);
  const payload = new Uint8Array(bytes === 12 ? new DataView(head.buffer).getUint32(8, true) : 0);
  await connection.receive(payload);
  console.log(JSON.stringify({ request: message.request, payload: [...payload] }));
  await connection.close();
}
await new Response(Deno.stdin.readable).text();
libc.umount2(text(directory), MNT_FORCE | MNT_DETACH);
Deno.exit(0);
