import { assertEquals, assertThrows } from "@std/assert";
import { parseNbdUri } from "../../backends/blk/nbd/uri.ts";

Deno.test("parseNbdUri() reads where a server is, and the export", () => {
  const cases: [uri: string, expected: Record<string, unknown>][] = [
    ["nbd://example.com", { server: "example.com:10809", exportName: "", tls: undefined }],
    ["nbd://example.com:1234/disk%201", { server: "example.com:1234", exportName: "disk 1" }],
    ["nbd://[2001:db8::1]/a/b", { host: "2001:db8::1", port: 10809, exportName: "a/b" }],
    ["nbd+unix:///?socket=/run/nbd.sock", { server: "/run/nbd.sock", exportName: "" }],
    ["nbd+unix:///disk?socket=/a%20b", { socket: "/a b", exportName: "disk" }],
    ["nbd+unix:///a+b?socket=/run/a+b=c%2Bd.sock", {
      socket: "/run/a+b=c+d.sock",
      exportName: "a+b",
    }],
    ["nbd://example.com//a/../b/./%2e%2e?", { exportName: "/a/../b/./.." }],
    ["NBD://[::1]:1234/ü%C3%BC%3F%23", { host: "::1", port: 1234, exportName: "üü?#" }],
    ["nbds://alice@host/x?tls-psk-file=/k", {
      tls: { username: "alice", pskFile: "/k", certificates: undefined, verifyPeer: false },
    }],
    ["nbds://host/x?tls-certificates=/c", {
      tls: { username: undefined, pskFile: undefined, certificates: "/c", verifyPeer: true },
    }],
    ["nbds+unix://bob@/x?socket=/s&tls-psk-file=/k", {
      exportName: "x",
      tls: { username: "bob", pskFile: "/k", certificates: undefined, verifyPeer: false },
    }],
    ["nbds+unix:///x?socket=/s&tls-certificates=/c&tls-verify-peer=0", {
      tls: { username: undefined, pskFile: undefined, certificates: "/c", verifyPeer: false },
    }],
  ];
  for (const [uri, expected] of cases) {
    const target: Record<string, unknown> = { ...parseNbdUri(uri) };
    const names = Object.keys(expected);
    assertEquals(Object.fromEntries(names.map((name) => [name, target[name]])), expected);
  }
  assertEquals(parseNbdUri("nbd://[::1]").server, "[::1]:10809");
});

Deno.test("parseNbdUri() says what is wrong with a URI", () => {
  const cases: [uri: string, message: string][] = [
    [
      "nbd://host:port/",
      "Expected an NBD URI such as nbd://HOST:PORT/EXPORT, got nbd://host:port/",
    ],
    [
      "nbd://host/%zz",
      "Expected % before two hexadecimal digits, UTF-8 and no NUL, got nbd://host/%zz",
    ],
    ["nbd://host/%ff", "Expected % before two hexadecimal digits"],
    ["nbd://host/a%00b", "Expected % before two hexadecimal digits"],
    ["nbd+unix:///?socket=%00/abstract", "no NUL"],
    ["nbd://host/a#b", "Expected %23 for #"],
    ["nbd+unix:///?socket=/s&socket=/t", "Expected one socket"],
    ["nbd:host:10809", "Expected a host"],
    ["nbd:///x", "Expected a host (nbd://HOST:PORT/EXPORT)"],
    ["nbd+unix:///x", "Expected nbd+unix:///EXPORT?socket=PATH"],
    ["nbd+unix://x?socket=/s", "Expected three slashes"],
    ["nbd://host/?socket=/s", "Expected no parameter socket"],
    ["nbd+unix:///?socket=/s&sock=/t", "Expected no parameter sock, but socket"],
    ["nbd://host/?tls-psk-file=/k", "Expected nbds: for tls-psk-file"],
    ["nbd://alice@host/", "Expected nbds: for a user's name"],
    ["nbds://alice:secret@host/", "Expected no password: NBD has none"],
    ["nbds://host/?tls-verify-peer=no", "Expected tls-verify-peer=0 or 1"],
    [
      "nbds://host/",
      "Expected tls-certificates=DIR with ca-cert.pem, tls-psk-file=FILE, or tls-ver",
    ],
    ["nbds+unix:///?socket=/s&tls-certificates=/c", "libnbd verifies no certificate over a Unix"],
    ["nbd+ssh://host/", "Expected a URI with nbd, nbds, nbd+unix, nbds+unix"],
  ];
  for (const [uri, message] of cases) {
    assertThrows(() => parseNbdUri(uri), Error, message);
  }
});
