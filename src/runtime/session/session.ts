/**
 * One connection of a front-end: the vhost-user protocol, message by message.
 *
 * Requests are answered in order, one at a time. Each is carried out by the handler that its
 * subject's table has for it. A request that is not understood, not possible, not offered or not
 * negotiated changes nothing, is recorded, and gets an error reply where the protocol has one; only
 * a broken byte stream ends the connection.
 *
 * Source: QEMU, docs/interop/vhost-user.rst.
 *
 * @module
 */

import {
  closeAll,
  type Fd,
  LinuxError,
  readKernelFile,
  type UnixConnection,
} from "../../linux/mod.ts";
import {
  type FrontendMessage,
  frontendMessages,
  type FrontendRequest,
  frontendRequests,
  type Header,
  type MessageSource,
  ProtocolError,
  protocolFeatureMask,
  receiveMessage,
  type RequestRule,
} from "../../vhost_user/mod.ts";
import type { DeviceHost } from "../device_host.ts";
import { streamNotice } from "../notices.ts";
import { SessionConfig } from "./config.ts";
import { deviceRequests } from "./device_requests.ts";
import { featureRequests } from "./features.ts";
import { inflightRequests } from "./inflight.ts";
import { dropLostMemory, memoryRequests } from "./memory.ts";
import {
  type RequestDescriptors,
  RequestError,
  type RequestHandler,
  type RequestHandlers,
} from "./request_handlers.ts";
import { ringRequests } from "./ring_requests.ts";
import { SessionRings } from "./rings.ts";
import { SessionState } from "./state.ts";

/** How long a request may take before the record says so. */
const PATIENCE_MS = 5000;

/** A connection of a front-end to a device. */
export class Session {
  readonly #host: DeviceHost;
  readonly #connection: UnixConnection;
  readonly #source: MessageSource<Fd>;
  readonly #state: SessionState;
  readonly #config: SessionConfig;
  readonly #rings: SessionRings;
  readonly #handlers: RequestHandlers;

  /** Takes over a connection; it is closed at the end of {@linkcode Session.run}. */
  constructor(host: DeviceHost, connection: UnixConnection) {
    this.#host = host;
    this.#connection = connection;
    const { quarantine } = host;
    this.#source = {
      peek: (into) => connection.peek(into),
      receive: (into, mostFds) => connection.receiveFrom(into, mostFds, quarantine),
      close: (fds) => quarantine.letGo(fds),
    };
    const state = this.#state = new SessionState(host);
    const config = this.#config = new SessionConfig(state);
    const rings = this.#rings = new SessionRings(state, config);
    this.#handlers = {
      ...featureRequests(state, rings),
      ...memoryRequests(state, rings),
      ...ringRequests(state, rings),
      ...inflightRequests(state, config),
      ...config.requests,
      ...deviceRequests(host),
    };
    state.offeredProtocol = protocolFeaturesOf(this.#handlers);
  }

  /**
   * Serves the connection until the front-end is gone or {@linkcode Session.stop} is called.
   * Afterwards nothing is left of it: rings are stopped, memory is unmapped, descriptors are
   * closed.
   */
  async run(): Promise<void> {
    const { record, memory, notices, wire } = this.#host;
    for (const ring of this.#state.rings) ring.clear();
    const frontend = frontendProcess(this.#connection);
    record.connected(frontend);
    wire.connected(frontend);
    this.#host.onConfigChange = () => this.#config.deviceChanged();
    this.#host.onEvent = ({ queue, rule, section = null, message, stack }) =>
      record.broken(queue, rule, section, message, stack);
    memory.onLost = (lost) => void dropLostMemory(this.#state, this.#rings, lost);
    let side: "front-end" | "back-end" = "front-end";
    let reason = "the front-end closed the connection";
    try {
      while (await this.#serveOne());
    } catch (error) {
      side = "back-end";
      reason = error instanceof Error ? error.message : String(error);
      if (error instanceof ProtocolError) notices.add(streamNotice(reason));
    } finally {
      this.#host.onConfigChange = undefined;
      await this.#reportIfSlow("the end", this.#state.exclusively(() => this.#cleanUp()));
      memory.onLost = this.#host.onEvent = undefined;
      record.disconnected(reason);
      wire.ended(side, reason);
    }
  }

  /** Ends the connection as if the front-end had. */
  stop(): void {
    this.#connection.shutdown();
  }

  /** Receives and answers one message; false at the end of the stream. */
  async #serveOne(): Promise<boolean> {
    const { quarantine, record, wire } = this.#host;
    if (quarantine.isFull) {
      throw new Error(
        `Expected descriptors that can be closed in time, got blocked calls: ${quarantine.stuck}`,
      );
    }
    const message = await receiveMessage(this.#source, (id) => frontendMessages.mostFds(id));
    if (message === undefined) return false;
    const { header, payload, fds, fdsLost } = message;
    record.message();
    wire.received(header, payload, fdsLost ? undefined : fds.length);
    try {
      await this.#state.exclusively(() => this.#answer(header, payload, fdsLost ? null : fds));
    } finally {
      // A handler has released those that it keeps.
      await this.#state.unlessStuck(requestName(header.id), quarantine.letGo(fds));
    }
    return true;
  }

  /** @param fds What came with the message; null where that was more than it may have. */
  async #answer(header: Header, payload: Uint8Array, fds: Fd[] | null): Promise<void> {
    let reply: Uint8Array | undefined;
    const replyFds: Fd[] = [];
    try {
      if (fds === null) {
        throw new RequestError(
          `Expected at most ${
            frontendMessages.mostFds(header.id)
          } file descriptors, got more, or more than this process has room for`,
        );
      }
      const message = frontendMessages.decode(header, payload, fds.length);
      const body = await this.#reportIfSlow(
        message.request,
        this.#handle(message, { fds, replyFds }),
      );
      if (frontendMessages.hasReply(header.id, this.#state.protocol)) {
        reply = frontendMessages.encodeReply(message.request as never, body as never);
      } else if (header.needReply && this.#state.hasProtocol("REPLY_ACK")) {
        reply = frontendMessages.encodeAck(header.id, 0n);
      }
    } catch (error) {
      if (error instanceof ProtocolError && error.scope === "stream") throw error;
      const request = requestName(header.id);
      this.#host.record.refused(request, error instanceof Error ? error.message : String(error));
      if (request === "SET_FEATURES") this.#state.isMisled = !header.needReply;
      reply = frontendMessages.encodeFailure(header, this.#state.protocol);
      if (reply === undefined && frontendMessages.nameOf(header.id) === undefined) {
        throw new ProtocolError(
          "stream",
          `Expected a request that is known, got ${header.id}, which may wait for an answer`,
        );
      }
    }
    try {
      const numbers = replyFds.map(({ number }) => number);
      if (reply !== undefined) {
        this.#host.wire.sent(reply, numbers.length);
        await this.#connection.send(reply, numbers);
      }
    } finally {
      closeAll(replyFds);
    }
  }

  /** Carries out a request; returns the body of its reply, if it has one of its own. */
  async #handle(message: FrontendMessage, descriptors: RequestDescriptors): Promise<unknown> {
    const { request } = message;
    const handler = this.#handlers[request] as RequestHandler<FrontendRequest> | undefined;
    if (handler === undefined) throw new RequestError(`${request} is not offered`);
    const { requires }: RequestRule = frontendRequests[request];
    if (requires !== undefined && !this.#state.hasProtocol(requires)) {
      throw new RequestError(
        `Expected the protocol feature ${requires} to be negotiated before ${request}`,
      );
    }
    return await handler(message as never, descriptors);
  }

  /** Awaits what may wait for the device, and records when that takes long. */
  async #reportIfSlow<T>(what: string, work: Promise<T>): Promise<T> {
    const late = setTimeout(() => {
      this.#host.record.slow(
        what,
        `Expected the device to be done within ${PATIENCE_MS / 1000} s, still waiting`,
      );
    }, PATIENCE_MS);
    try {
      return await work;
    } finally {
      clearTimeout(late);
    }
  }

  async #cleanUp(): Promise<void> {
    const { memory, quarantine } = this.#host;
    await this.#rings.close();
    this.#state.dropInflight();
    await this.#host.tell({ kind: "memory", regions: [] });
    memory.clear();
    await this.#host.tell({ kind: "features", bits: 0n });
    await this.#host.reset();
    await this.#config.closeBackChannel();
    await this.#state.unlessStuck("the end", this.#connection.closeIn(quarantine));
  }
}

/** The protocol features that go with the requests that are handled. */
function protocolFeaturesOf(handlers: RequestHandlers): bigint {
  const requests = Object.keys(handlers) as FrontendRequest[];
  const features = requests.map((request) => (frontendRequests[request] as RequestRule).requires);
  return protocolFeatureMask("REPLY_ACK", ...features.filter((name) => name !== undefined));
}

function requestName(id: number): string {
  return frontendMessages.nameOf(id) ?? `request ${id}`;
}

/** The process at the other end. */
function frontendProcess(connection: UnixConnection): { pid: number; command: string } | null {
  try {
    const pid = connection.peerPid();
    return { pid, command: readKernelFile(`/proc/${pid}/comm`).trim() };
  } catch (error) {
    if (error instanceof LinuxError) return null;
    throw error;
  }
}
