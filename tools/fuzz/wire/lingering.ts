/**
 * Sockets whose last close blocks: with SO_LINGER, and with more to send than the
 * other end takes.
 */
import { check } from "../../../src/linux/errors.ts";
import { Fd } from "../../../src/linux/mod.ts";

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_LINGER = 13;
const MSG_DONTWAIT = 0x40;
const LINGER_SECONDS = 600;
/** So much is soon full. */
const FEW_BYTES = 4096;

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
});

/**
 * Makes lingering sockets, on loopback. The listening socket that their other ends wait in lets
 * them go when it is closed.
 */
export class LingeringSockets implements Disposable {
  readonly #listener: Fd;
  readonly #address = new Uint8Array(16); // struct sockaddr_in
  readonly #made: Fd[] = [];

  constructor() {
    this.#listener = new Fd(check(libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    setOption(this.#listener, SO_RCVBUF, FEW_BYTES);
    this.#address[0] = AF_INET;
    this.#address.set([127, 0, 0, 1], 4);
    check(libc.bind(this.#listener.number, this.#address, 16), "bind");
    check(libc.listen(this.#listener.number, 512), "listen");
    check(
      libc.getsockname(this.#listener.number, this.#address, new Uint32Array([16])),
      "getsockname",
    );
  }

  /** Makes one. Send it and close it here, so that its receiver closes it last. */
  make(): Fd {
    const fd = new Fd(check(libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    this.#made.push(fd);
    setOption(fd, SO_SNDBUF, FEW_BYTES);
    check(libc.connect(fd.number, this.#address, 16), "connect");
    setOption(fd, SO_LINGER, 1, LINGER_SECONDS); // struct linger
    const bytes = new Uint8Array(65_536);
    while (libc.send(fd.number, bytes, bytes.length, MSG_DONTWAIT) > 0);
    return fd;
  }

  /** Ends the blocked closes. */
  [Symbol.dispose](): void {
    this.#listener.close();
    for (const fd of this.#made) fd.close();
  }
}

function setOption({ number }: Fd, name: number, ...value: number[]): void {
  const words = new Int32Array(value);
  check(libc.setsockopt(number, SOL_SOCKET, name, words, words.byteLength), "setsockopt");
}
