import { closeAll, type Fd, type UnixConnection } from "../linux/mod.ts";
import { type BackendMessage, backendMessages, ProtocolError } from "../vhost_user/mod.ts";
import { type RawMessage, receiveFrom } from "./control_channel.ts";
import { FrontendError } from "./frontend_error.ts";
import { DEFAULT_TIMEOUT_MS } from "./wait.ts";

/** How many messages wait to be read; when there are more, the oldest are dropped. */
const MAX_WAITING = 1024;

/** A message that the back-end sent on its own. */
export interface BackendEvent {
  /** The message. */
  message: BackendMessage;
  /** It asked for an acknowledgement. */
  needReply: boolean;
  /** Its file descriptors; the reader's to close. */
  fds: Fd[];
}

/** How a {@linkcode BackChannel} answers. */
export interface BackChannelOptions {
  /**
   * Called for each message before it is acknowledged; its result is the acknowledgement, or
   * the reply of a message that has one: 0n for success. It must not wait for the control channel
   * of a back-end that waits for it.
   *
   * @default {acknowledges everything}
   */
  onMessage?: (event: BackendEvent) => bigint | void | Promise<bigint | void>;
}

/**
 * The channel on which a back-end sends messages on its own (SET_BACKEND_REQ_FD), read and
 * acknowledged as they come.
 */
export class BackChannel implements AsyncDisposable {
  readonly #socket: UnixConnection;
  readonly #onMessage: BackChannelOptions["onMessage"];
  readonly #waiting: (BackendEvent | ProtocolError)[] = [];
  readonly #loop: Promise<void>;
  #wake: () => void = () => {};
  #ended = false;

  /** Takes ownership of this side of a socket pair and reads from it. */
  constructor(socket: UnixConnection, options: BackChannelOptions = {}) {
    this.#socket = socket;
    this.#onMessage = options.onMessage;
    this.#loop = this.#run();
  }

  /**
   * The next message, in the order in which they came.
   *
   * @param timeoutMs How long to wait for it
   * @throws {FrontendError} With reason "timeout", or "closed" once the back-end closed the channel
   * @throws {ProtocolError} In place of a message that is wrong
   */
  async next(timeoutMs: number = DEFAULT_TIMEOUT_MS): Promise<BackendEvent> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const event = this.#waiting.shift();
      if (event instanceof Error) throw event;
      if (event !== undefined) return event;
      if (this.#ended) {
        throw new FrontendError("closed", "Expected a message, got the back-channel's end");
      }
      const left = deadline - performance.now();
      if (left <= 0) {
        throw new FrontendError(
          "timeout",
          `Expected a message on the back-channel within ${timeoutMs} ms, got none`,
        );
      }
      await this.#woken(left);
    }
  }

  async #woken(timeoutMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, timeoutMs);
    });
    clearTimeout(timer);
  }

  async #run(): Promise<void> {
    try {
      while (await this.#receive());
    } catch (error) {
      if (error instanceof ProtocolError) this.#push(error);
      // Otherwise the socket broke, which is the channel's end as well.
    } finally {
      this.#ended = true;
      this.#wake();
    }
  }

  #push(event: BackendEvent | ProtocolError): void {
    this.#waiting.push(event);
    if (this.#waiting.length > MAX_WAITING) {
      const dropped = this.#waiting.shift()!;
      if (!(dropped instanceof Error)) closeAll(dropped.fds);
    }
    this.#wake();
  }

  /** Reads one message; false at the channel's end. */
  async #receive(): Promise<boolean> {
    const received = await receiveFrom(this.#socket);
    if (received === undefined) return false;
    const { header: { id, needReply } } = received;
    const event = this.#decode(received);
    try {
      const value = event === undefined ? 1n : await this.#onMessage?.(event) ?? 0n;
      if (needReply || event?.message.request === "SHARED_OBJECT_LOOKUP") {
        await this.#socket.send(backendMessages.encodeAck(id, value));
      }
    } catch (error) {
      closeAll(received.fds);
      throw error;
    }
    if (event === undefined) closeAll(received.fds);
    else this.#push(event);
    return true;
  }

  /** The message; one that is wrong alone is handed on as an error. */
  #decode({ header, payload, fds }: RawMessage): BackendEvent | undefined {
    try {
      const message = backendMessages.decode(header, payload, fds.length);
      return { message, needReply: header.needReply, fds };
    } catch (error) {
      if (!(error instanceof ProtocolError) || error.scope !== "message") throw error;
      this.#push(error);
      return undefined;
    }
  }

  /** Closes the channel, and the descriptors of unread messages. */
  async close(): Promise<void> {
    this.#socket.shutdown();
    await this.#loop;
    await this.#socket.close();
    for (const event of this.#waiting.splice(0)) {
      if (!(event instanceof Error)) closeAll(event.fds);
    }
  }

  /** Closes the channel. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
