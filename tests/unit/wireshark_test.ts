/** The dissector in share/wireshark has the tables of src/. */
import { assertEquals } from "@std/assert";
import {
  capturedChannels,
  capturedKinds,
  capturedSides,
  decodeCaptured,
  encodeCaptured,
} from "../../src/vhost_user/captured_packet.ts";
import {
  backendRequests,
  frontendRequests,
  protocolFeatures,
  type RequestTable,
} from "../../src/vhost_user/mod.ts";
import { transportFeatures } from "../../src/virtio/features.ts";
import { deviceStatus } from "../../src/virtio/status.ts";

const FILE = new URL("../../share/wireshark/vhost_user.lua", import.meta.url);

function table(name: string, lines: readonly string[]): string {
  return `local ${name} = {\n${lines.map((line) => `  ${line},\n`).join("")}}\n`;
}

function requests(name: string, table_: RequestTable): string {
  return table(
    name,
    Object.entries(table_).map(([name, { id, payload, reply }]) => {
      const fields = { name, payload, ...reply !== undefined && { reply } };
      const list = Object.entries(fields).map(([key, value]) => `${key} = "${value}"`);
      return `[${id}] = { ${list.join(", ")} }`;
    }),
  );
}

function names(name: string, bits: readonly (readonly [name: string, bit: number])[]): string {
  return table(name, bits.map(([name, bit]) => `[${bit}] = "${name}"`));
}

/** The tables as the dissector has to have them. */
function tables(): string {
  const list = (values: readonly string[]) => values.map((value) => `"${value}"`).join(", ");
  return [
    `local kinds = { [0] = ${list(capturedKinds)} }\n`,
    `local sides = { [0] = ${list(capturedSides)} }\n`,
    `local channels = { [0] = ${list(capturedChannels)} }\n`,
    requests("frontend_requests", frontendRequests),
    requests("backend_requests", backendRequests),
    names("protocol_features", Object.entries(protocolFeatures)),
    names("features", Object.entries(transportFeatures).map(([name, { bit }]) => [name, bit])),
    names(
      "device_status",
      Object.entries(deviceStatus).map(([name, bit]) => [name, Math.log2(bit)]),
    ),
  ].join("");
}

Deno.test("the Wireshark dissector has the requests, features and kinds of src/", () => {
  const text = Deno.readTextFileSync(FILE);
  const [, block] = text.match(/-- tables begin\n(.*)-- tables end\n/s)!;
  assertEquals(block, tables(), "copy the expected tables into share/wireshark/vhost_user.lua");
});

Deno.test("a captured packet is decoded as it was encoded, and others are refused", () => {
  const bytes = Uint8Array.of(1, 2, 3);
  for (const kind of capturedKinds) {
    for (const side of capturedSides) {
      for (const channel of capturedChannels) {
        for (const fds of [0, 8, undefined]) {
          const packet = { kind, side, channel, connection: 0x1234_5678, fds, bytes };
          assertEquals(decodeCaptured(encodeCaptured(packet)), packet);
        }
      }
    }
  }
});
