/**
 * Sends commands to the monitors of a Ceph cluster, as `ceph` does, which needs a Python of its own:
 * `ceph_command.ts CONF COMMAND…`, each command in JSON. Runs in a process of its own, whose dynamic
 * loader finds Ceph's libraries.
 */
const { symbols: rados } = Deno.dlopen("librados.so.2", {
  rados_create: { parameters: ["buffer", "buffer"], result: "i32" }, // cluster, id
  rados_conf_read_file: { parameters: ["u64", "buffer"], result: "i32" }, // cluster, path
  rados_connect: { parameters: ["u64"], result: "i32" }, // cluster
  rados_mon_command: {
    parameters: [
      "u64",
      "buffer",
      "usize",
      "pointer",
      "usize",
      "buffer",
      "buffer",
      "buffer",
      "buffer",
    ],
    result: "i32",
  }, // cluster, cmd, cmdlen, inbuf, inbuflen, outbuf, outbuflen, outs, outslen
  rados_shutdown: { parameters: ["u64"], result: "void" }, // cluster
});

const text = (words: string) => new TextEncoder().encode(`${words}\0`);

function expect(result: number, what: string): void {
  if (result < 0) throw new Error(`${what}: ${result}`);
}

const [conf, ...commands] = Deno.args;
const handle = new BigUint64Array(1);
expect(rados.rados_create(handle, text("admin")), "rados_create");
const cluster = handle[0];
expect(rados.rados_conf_read_file(cluster, text(conf)), conf);
expect(rados.rados_connect(cluster), "rados_connect");
for (const command of commands) {
  const words = text(command);
  const list = BigUint64Array.of(Deno.UnsafePointer.value(Deno.UnsafePointer.of(words)));
  const out = Array.from({ length: 4 }, () => new BigUint64Array(1));
  const [data, dataBytes, status, statusBytes] = out;
  const result = rados.rados_mon_command(
    ...[cluster, list, 1n, null, 0n, data, dataBytes, status, statusBytes] as const,
  );
  const said = (address: bigint, bytes: bigint) => {
    const at = Deno.UnsafePointer.create(address);
    if (at === null) return "";
    return new TextDecoder().decode(Deno.UnsafePointerView.getArrayBuffer(at, Number(bytes)));
  };
  expect(result, `${command}: ${said(status[0], statusBytes[0])}`);
  console.log(said(data[0], dataBytes[0]));
}
rados.rados_shutdown(cluster);
