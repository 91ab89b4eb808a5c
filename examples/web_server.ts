/**
 * A web server of the host for one guest. It shows the guest what its network card has passed, and
 * keeps notes for it. The guest reaches it through passt, by the address of its gateway:
 *
 *     vhostd net --socket-path=/tmp/net.sock --control-path=/tmp/net.ctl --user
 *     deno run --allow-all examples/web_server.ts /tmp/net.ctl
 *     wget -qO- http://GATEWAY:8000/card                     # in the guest
 *
 * @module
 */

const MAX_NOTES = 100, MAX_NOTE_BYTES = 65_536;

const [controlPath] = Deno.args;
const client = Deno.createHttpClient({ proxy: { transport: "unix", path: controlPath } });
const notes = new Map<string, Uint8Array<ArrayBuffer>>();

// Only this host, and guests through passt
Deno.serve({ hostname: "127.0.0.1", port: 8000 }, async (request) => {
  const { pathname } = new URL(request.url);
  if (pathname === "/card") {
    const record = await (await fetch("http://localhost/record", { client })).json();
    const { sent, received } = record.report;
    return Response.json({ sent, received });
  }
  const [, name] = /^\/notes\/([\w-]{1,64})$/.exec(pathname) ?? [];
  if (name === undefined) return text(404, "There are /card and /notes/NAME");
  if (request.method === "PUT") {
    const note = await bodyOf(request);
    if (note === undefined) return text(413, `A note has up to ${MAX_NOTE_BYTES} bytes`);
    if (notes.size === MAX_NOTES && !notes.has(name)) return text(507, "There is no more room");
    notes.set(name, note);
    return text(200, `Kept ${note.length} bytes`);
  }
  const note = notes.get(name);
  return note === undefined ? text(404, `There is no note ${name}`) : new Response(note);
});

/** The body of a request; undefined if it is too long. */
async function bodyOf({ body }: Request): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const note = new Uint8Array(MAX_NOTE_BYTES);
  let bytes = 0;
  for await (const part of body ?? []) {
    if (bytes + part.length > MAX_NOTE_BYTES) return;
    note.set(part, bytes);
    bytes += part.length;
  }
  return note.slice(0, bytes);
}

function text(status: number, line: string): Response {
  return new Response(`${line}\n`, { status });
}
