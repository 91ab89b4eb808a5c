import { closeAll, type Fd, UnixConnection } from "../linux/mod.ts";
import {
  type FrontendMessage,
  type FrontendMessageNamed,
  frontendMessages,
  type FrontendReply,
  type FrontendReplyRequest,
  type FrontendRequest,
  hasProtocolFeature,
  MAX_FDS,
  type ReceivedMessage,
  receiveMessage,
} from "../vhost_user/mod.ts";
import { FrontendError } from "./frontend_error.ts";
import { DEFAULT_TIMEOUT_MS, readable } from "./wait.ts";

/** How a front-end talks to a back-end. */
export interface ChannelOptions {
  /**
   * How long each request may take, in milliseconds.
   *
   * @default {30_000}
   */
  timeoutMs?: number;
  /**
   * How long to retry while no process listens at the path, in milliseconds.
   *
   * @default {0}
   */
  connectMs?: number;
}

/** A message as it came; its file descriptors are the caller's to close. */
export type RawMessage = ReceivedMessage<Fd>;

/** The answer to a request. */
export interface Answer<R extends FrontendReplyRequest> {
  /** Its payload. */
  body: FrontendReply<R>;
  /** Its file descriptors; the caller's to close. */
  fds: Fd[];
}

/** Pause between connection attempts. */
const CONNECT_RETRY_MS = 5;

/**
 * Connects to a Unix socket.
 *
 * @throws {LinuxError} If no process listens there in time
 */
export async function connectUnix(path: string, connectMs = 0): Promise<UnixConnection> {
  const deadline = performance.now() + connectMs;
  for (;;) {
    try {
      return UnixConnection.connect(path);
    } catch (error) {
      const { code } = error as { code?: string };
      const early = code === "ENOENT" || code === "ECONNREFUSED" || code === "EAGAIN";
      if (!early || performance.now() >= deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, CONNECT_RETRY_MS));
  }
}

/** Receives a message from a back-end; undefined at the end of the stream. */
export function receiveFrom(socket: UnixConnection): Promise<RawMessage | undefined> {
  const source = {
    peek: (into: Uint8Array) => socket.peek(into),
    receive: (into: Uint8Array, mostFds: number) => socket.receive(into, mostFds),
    close: closeAll,
  };
  return receiveMessage(source, () => MAX_FDS);
}

/**
 * A front-end's connection: any message, one after the other, with its reply or acknowledgement.
 * {@linkcode FrontendConnection} adds a method per request.
 *
 * Requests that overlap are sent in the order in which they were made. One that is not answered in
 * time ends the connection, since a late answer would be taken for that of the next request.
 */
export class ControlChannel implements AsyncDisposable {
  /** How long each request may take, in milliseconds. */
  readonly timeoutMs: number;
  /**
   * The protocol features in force, which tell what is answered: set by SET_PROTOCOL_FEATURES, and
   * for the caller to change after raw messages.
   */
  protocolFeatures = 0n;
  readonly #socket: UnixConnection;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  /** Takes ownership of a connection. */
  constructor(socket: UnixConnection, { timeoutMs = DEFAULT_TIMEOUT_MS }: ChannelOptions = {}) {
    this.#socket = socket;
    this.timeoutMs = timeoutMs;
  }

  /**
   * Sends a request that has a reply of its own and waits for that.
   *
   * @param message The request and its payload
   * @param fds Its file descriptors; they stay the caller's
   * @throws {FrontendError} If no reply comes
   * @throws {ProtocolError} If the message is not the reply
   */
  ask<R extends FrontendReplyRequest>(
    message: FrontendMessageNamed<R>,
    fds: readonly number[] = [],
  ): Promise<Answer<R>> {
    const request: R = message.request;
    return this.#exchange(request, async () => {
      await this.#socket.send(frontendMessages.encode(message as FrontendMessage), fds);
      return await this.#receiveAnswer(
        request,
        ({ header, payload, fds }) =>
          frontendMessages.decodeReply(request, header, payload, fds.length),
      );
    });
  }

  /**
   * Sends a request that has no reply of its own. With REPLY_ACK it waits for the acknowledgement;
   * without, it returns when the request is sent.
   *
   * @param message The request and its payload
   * @param fds Its file descriptors; they stay the caller's
   * @throws {FrontendError} With reason "refused", if the back-end says that it failed
   */
  tell(message: FrontendMessage, fds: readonly number[] = []): Promise<void> {
    const { request } = message;
    const needReply = hasProtocolFeature(this.protocolFeatures, "REPLY_ACK");
    return this.#exchange(request, async () => {
      await this.#socket.send(frontendMessages.encode(message, { needReply }), fds);
      if (needReply) await this.#receiveAck(request);
    });
  }

  /**
   * Sends bytes as they are, such as a malformed message.
   *
   * @param bytes What to send; nothing is added
   * @param fds File descriptors to send with them; they stay the caller's
   */
  send(bytes: Uint8Array, fds: readonly number[] = []): Promise<void> {
    return this.#exchange("send", () => this.#socket.send(bytes, fds));
  }

  /**
   * Receives the next message, whatever it is, such as the answer to a malformed one. When none
   * comes in time, the connection stays usable.
   *
   * @param timeoutMs How long to wait for it to begin
   * @returns The message, or undefined if the back-end closed the connection
   * @throws {FrontendError} With reason "timeout"
   */
  receive(timeoutMs: number = this.timeoutMs): Promise<RawMessage | undefined> {
    return this.#inTurn(async () => {
      if (!await readable(this.#socket.fd.number, timeoutMs)) {
        throw new FrontendError("timeout", `Expected a message within ${timeoutMs} ms, got none`);
      }
      return await this.#limited("receive", () => receiveFrom(this.#socket));
    });
  }

  async #receiveAck(request: FrontendRequest): Promise<void> {
    const { body } = await this.#receiveAnswer(
      request,
      ({ header, payload, fds }) =>
        frontendMessages.decodeAck(request, header, payload, fds.length),
    );
    if (body === 0n) return;
    throw new FrontendError("refused", `${request}: Expected success, got error ${body}`);
  }

  async #receiveAnswer<T>(
    request: FrontendRequest,
    decode: (message: RawMessage) => T,
  ): Promise<{ body: T; fds: Fd[] }> {
    const message = await receiveFrom(this.#socket);
    if (message === undefined) {
      throw new FrontendError("closed", `${request}: Expected an answer, got the connection's end`);
    }
    try {
      return { body: decode(message), fds: message.fds };
    } catch (error) {
      closeAll(message.fds);
      throw error;
    }
  }

  #exchange<T>(what: string, work: () => Promise<T>): Promise<T> {
    return this.#inTurn(() => this.#limited(what, work));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => {
      if (this.#closed) {
        throw new FrontendError("closed", "Expected an open connection, got a closed one");
      }
      return work();
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Bounds the time that some work on the socket takes, by ending the connection. */
  async #limited<T>(what: string, work: () => Promise<T>): Promise<T> {
    let late = false;
    const timer = setTimeout(() => {
      late = this.#closed = true;
      this.#socket.shutdown();
    }, this.timeoutMs);
    try {
      return await work();
    } catch (error) {
      if (late) {
        throw new FrontendError(
          "timeout",
          `${what}: Expected an answer within ${this.timeoutMs} ms, got none`,
          { cause: error },
        );
      }
      const { code } = error as { code?: string };
      if (code === "EPIPE" || code === "ECONNRESET") {
        throw new FrontendError("closed", `${what}: The back-end closed the connection`, {
          cause: error,
        });
      }
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the connection; pending requests fail. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#socket.shutdown();
    await this.#last;
    await this.#socket.close();
  }

  /** Ends the connection. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
