/** A program: uses `examples/web_server.ts` at the address that it is given, and prints the answers. */
const [url] = Deno.args;

async function put(name: string, bytes: number): Promise<string> {
  const answer = await fetch(`${url}/notes/${name}`, {
    method: "PUT",
    body: new Uint8Array(bytes),
  });
  return await answer.text();
}

async function get(path: string): Promise<[number, string]> {
  const answer = await fetch(`${url}/${path}`);
  return [answer.status, await answer.text()];
}

console.log(JSON.stringify({
  kept: await put("mine", 60_000),
  refused: await put("long", 65_537),
  bytes: (await get("notes/mine"))[1].length,
  missing: await get("notes/long"),
  other: await get("else"),
  card: JSON.parse((await get("card"))[1]),
}));
