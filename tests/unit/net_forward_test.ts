import { assertEquals, assertThrows } from "@std/assert";
import { forwardArguments } from "../../backends/net/passt.ts";
import { OptionError } from "../../mod.ts";

Deno.test("forwardArguments() opens ports to this host unless an address is given", () => {
  assertEquals(forwardArguments(undefined), []);
  assertEquals(forwardArguments("2222:22,80,udp:53,tcp:0.0.0.0:8080:80,udp:[::1]:1:65535"), [
    ...["--tcp-ports", "127.0.0.1/2222:22", "--tcp-ports", "127.0.0.1/80:80"],
    ...["--udp-ports", "127.0.0.1/53:53", "--tcp-ports", "0.0.0.0/8080:80"],
    ...["--udp-ports", "::1/1:65535"],
  ]);
});

Deno.test("forwardArguments() refuses anything else", () => {
  const wrong = [
    ...["", "x", "0", "65536", "22:0", "22:65536", "22,", "sctp:22", "1.2.3:22", "a.b:1:2"],
    ...["::1:22", "[::1:22", "22:22:22", "tcp:", "-22", "22 ", "1.2.3.4:", "0x16"],
  ];
  for (const text of wrong) {
    assertThrows(() => forwardArguments(text), OptionError, "--forward takes");
  }
  assertThrows(() => forwardArguments(Array(65).fill("1").join()), OptionError, "up to 64 ports");
});
