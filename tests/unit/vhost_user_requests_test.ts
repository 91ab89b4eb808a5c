import { assert, assertEquals } from "@std/assert";
import {
  backendMessages,
  backendRequests,
  frontendMessages,
  frontendRequests,
  type MessageCodec,
  protocolFeatures,
  type RequestRule,
  type RequestTable,
} from "../../src/vhost_user/mod.ts";

const tables: [string, Record<string, RequestRule>, number][] = [
  ["frontendRequests", frontendRequests, 43],
  ["backendRequests", backendRequests, 10],
];

for (const [title, table, last] of tables) {
  Deno.test(`${title} has every id from 1 to ${last} once, in order`, () => {
    assertEquals(
      Object.values(table).map((rule) => rule.id),
      Array.from({ length: last }, (_, i) => i + 1),
    );
  });

  Deno.test(`${title} refers to protocol features that exist`, () => {
    for (const [name, { requires, replyRequires }] of Object.entries(table)) {
      assert(requires === undefined || requires in protocolFeatures, name);
      assert(
        replyRequires === undefined || replyRequires in protocolFeatures,
        name,
      );
    }
  });

  Deno.test(`${title} has fd rules that match the payloads`, () => {
    for (const [name, rule] of Object.entries(table)) {
      if (rule.fds === "perRegion") assertEquals(rule.payload, "memory", name);
      if (rule.fds === "unlessNoFd") {
        assert(["vringFd", "vringArea"].includes(rule.payload), name);
      }
      if (rule.replyFds === "ifMapped") {
        assertEquals(rule.reply, "inflight", name);
      }
      if (rule.maxNum !== undefined) {
        assertEquals(rule.payload, "vringState", name);
      }
    }
  });
}

const codecs: [string, MessageCodec<RequestTable>, Record<string, RequestRule>][] = [
  ["frontendMessages", frontendMessages as unknown as MessageCodec<RequestTable>, frontendRequests],
  ["backendMessages", backendMessages as unknown as MessageCodec<RequestTable>, backendRequests],
];
for (const [title, codec, table] of codecs) {
  Deno.test(`${title}.nameOf() knows the ids of the table and no others`, () => {
    for (const [name, { id }] of Object.entries(table)) {
      assertEquals<string | undefined>(codec.nameOf(id), name);
    }
    for (const id of [0, Object.keys(table).length + 1, -1, 0xffffffff]) {
      assertEquals(codec.nameOf(id), undefined);
    }
  });
}
