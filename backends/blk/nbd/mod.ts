/**
 * A disk of an NBD server: `vhostd blk nbd://HOST:PORT/EXPORT`.
 *
 * @module
 */

import { defineStore } from "../module/define_store.ts";
import { FLUSH, READ, TRIM, WRITE, ZERO } from "./connection.ts";
import { NbdServer } from "./server.ts";
import { NbdQueue, type NbdShared } from "./queue.ts";
import { parseNbdUri } from "./uri.ts";

export default defineStore({
  options: {
    connections: {
      type: "number",
      placeholder: "N",
      least: 1,
      most: 16,
      about: "Connections where the server allows several; by default 4 over TCP, 1 over a socket",
    },
    reconnect: {
      type: "number",
      placeholder: "SECONDS",
      least: 0,
      most: 86_400,
      default: 60,
      about: "How long requests wait for a server that is gone, before they fail",
    },
    timeout: {
      type: "number",
      placeholder: "SECONDS",
      least: 1,
      most: 86_400,
      default: 60,
      about: "Time after which a request without an answer fails",
    },
    structured: {
      type: "text",
      placeholder: "on|off",
      choices: ["on", "off"],
      about: "Structured replies, which skip holes and cost more time; by default on over TCP",
    },
  },

  async open(options, { name, readOnly, log, resized }) {
    const target = parseNbdUri(name);
    const { reconnect, timeout } = options;
    // On one machine, more connections wake the thread more often: 0.9 times the processor time of
    // QEMU's driver by four, 0.5 times by one
    const connections = options.connections ?? (target.socket === undefined ? 4 : 1);
    const structured = options.structured ?? (target.socket === undefined ? "on" : "off");
    const server = await NbdServer.open(target, {
      ...{ connections, readOnly, log, resized },
      structured: structured === "on",
    });
    const { facts } = server;
    const shared: NbdShared = {
      ...{
        link: server.link.handle,
        server: target.server,
        flush: facts.flush,
        reconnect,
        timeout,
      },
    };
    return {
      bytes: facts.bytes,
      blockBytes: Math.max(facts.minBlockBytes, 512),
      shared,
      without: [
        ...facts.readOnly ? ["write"] as const : [],
        ...facts.flush ? [] : ["flush"] as const,
        ...facts.trim ? [] : ["discard"] as const,
        ...facts.zero ? [] : ["writeZeroes"] as const,
      ],
      report: () => server.report(),
      close: () => server.close(),
    };
  },

  attach: (context) => new NbdQueue(context),

  read: (request, queue) => queue.begin(request, READ),
  write: (request, queue) => queue.begin(request, WRITE),
  flush: (request, queue) => queue.begin(request, FLUSH),
  discard: (request, queue) => queue.begin(request, TRIM),
  writeZeroes: (request, _unmap, queue) => queue.begin(request, ZERO),
  submit: (queue) => queue.submit(),
  cancel: (queue) => queue.cancel(),
  close: (queue) => queue.close(),
});
