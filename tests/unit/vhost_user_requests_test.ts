import { assert, assertEquals } from "@std/assert";
import {
  backendRequestName,
  backendRequests,
  frontendRequestName,
  frontendRequests,
  protocolFeatures,
  type RequestRule,
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

  Deno.test(`${title} has fd rules that fit the payloads`, () => {
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

Deno.test("frontendRequestName() knows the ids of the table and no others", () => {
  for (const [name, { id }] of Object.entries(frontendRequests)) {
    assertEquals<string | undefined>(frontendRequestName(id), name);
  }
  for (const id of [0, 44, -1, 0xffffffff]) {
    assertEquals(frontendRequestName(id), undefined);
  }
});

Deno.test("backendRequestName() knows the ids of the table and no others", () => {
  for (const [name, { id }] of Object.entries(backendRequests)) {
    assertEquals<string | undefined>(backendRequestName(id), name);
  }
  for (const id of [0, 11, -1, 0xffffffff]) {
    assertEquals(backendRequestName(id), undefined);
  }
});
