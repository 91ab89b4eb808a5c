/**
 * QMP, QEMU's protocol for management: commands, and the events that QEMU sends by itself.
 *
 * @module
 */

import { text } from "../../runtime/shape.ts";
import { linesOf } from "../../web/lines.ts";

/** Time for an answer of QEMU. */
const ANSWER_MS = 5_000;

/** A failure of QMP, with a message for a person. */
export class QmpError extends Error {
  override name = "QmpError";
}

/** A message from QEMU: its greeting, an answer, an error or an event. */
interface Message {
  QMP?: object;
  return?: unknown;
  error?: { class: string; desc: string };
  event?: string;
  data?: unknown;
  id?: number;
}

/** A connection to QEMU. */
export class Qmp implements AsyncDisposable {
  /** Resolves when the connection has ended. */
  readonly ended: Promise<void>;
  /** Gets each event. */
  onEvent: (name: string, data: unknown) => void = () => {};
  readonly #connection: Deno.Conn;
  readonly #greeting = Promise.withResolvers<void>();
  readonly #answers = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #events = new Map<string, PromiseWithResolvers<unknown>[]>();
  readonly #timeoutMs: number;
  #nextId = 1;

  private constructor(connection: Deno.Conn, timeoutMs: number) {
    this.#connection = connection;
    this.#timeoutMs = timeoutMs;
    this.#greeting.promise.catch(() => {});
    this.ended = this.#read();
  }

  /**
   * Takes QEMU's connection to a listener, and prepares it for commands.
   *
   * @throws {QmpError} When QEMU closes it.
   */
  static async accept(listener: Deno.Listener): Promise<Qmp> {
    return await Qmp.begin(await listener.accept());
  }

  /**
   * Connects to a QEMU that listens.
   *
   * @param timeoutMs Time for QEMU's greeting, as it talks to one client at a time, and for each
   * answer.
   * @throws {QmpError} When no QEMU answers there.
   */
  static async connect(path: string, timeoutMs = ANSWER_MS): Promise<Qmp> {
    let connection: Deno.Conn;
    try {
      connection = await Deno.connect({ transport: "unix", path });
    } catch (cause) {
      if (cause instanceof Deno.errors.NotCapable) throw cause;
      const why = cause instanceof Deno.errors.NotFound
        ? "there is nothing"
        : cause instanceof Deno.errors.ConnectionRefused
        ? "nothing listens there"
        : (cause as Error).message;
      throw new QmpError(
        `Expected QEMU's QMP socket at ${path}: ${why}; start QEMU with ` +
          "-qmp unix:PATH,server=on,wait=off",
        { cause },
      );
    }
    return await Qmp.begin(connection, timeoutMs, path);
  }

  /**
   * Prepares a connection for commands.
   *
   * @param timeoutMs Time for QEMU's greeting. @default {any}
   * @throws {QmpError} When no QEMU answers.
   */
  static async begin(connection: Deno.Conn, timeoutMs?: number, path = ""): Promise<Qmp> {
    const qmp = new Qmp(connection, timeoutMs ?? ANSWER_MS);
    const late = timeoutMs === undefined ? undefined : setTimeout(() => {
      qmp.#fail(
        new QmpError(
          `Expected a greeting from QEMU's QMP at ${path} within ${timeoutMs / 1000} s; another ` +
            "client may be connected, or it is no QMP socket",
        ),
      );
    }, timeoutMs);
    try {
      await qmp.#greeting.promise;
      await qmp.execute("qmp_capabilities");
      return qmp;
    } catch (error) {
      await qmp[Symbol.asyncDispose]();
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  /**
   * Runs a command; returns QEMU's answer.
   *
   * @throws {QmpError} When QEMU refuses it or is gone.
   */
  async execute(command: string, args?: object): Promise<unknown> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<unknown>();
    answer.promise.catch(() => {});
    this.#answers.set(id, answer);
    const line = JSON.stringify({ execute: command, arguments: args, id });
    const bytes = new TextEncoder().encode(`${line}\n`);
    const late = setTimeout(() => {
      this.#answers.delete(id);
      answer.reject(new QmpError(`QEMU does not answer within ${this.#timeoutMs / 1000} s`));
    }, this.#timeoutMs);
    try {
      for (let at = 0; at < bytes.length;) {
        at += await this.#connection.write(bytes.subarray(at));
      }
      return await answer.promise;
    } catch (cause) {
      throw new QmpError(`QMP ${command}: ${(cause as Error).message}`, { cause });
    } finally {
      clearTimeout(late);
    }
  }

  /** Runs a command of QEMU's monitor for people; returns its output. */
  async monitor(line: string): Promise<string> {
    const answer = await this.execute("human-monitor-command", { "command-line": line });
    text(answer, `what QEMU answers to ${line}`);
    return answer as string;
  }

  /** Waits for the next event of a name; resolves to the event's data. */
  event(name: string): Promise<unknown> {
    const waiting = Promise.withResolvers<unknown>();
    waiting.promise.catch(() => {}); // Nobody need listen when QEMU ends
    this.#events.set(name, [...this.#events.get(name) ?? [], waiting]);
    return waiting.promise;
  }

  /** Closes the connection. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#connection.close();
    } catch (error) {
      if (!(error instanceof Deno.errors.BadResource)) throw error; // It is closed already
    }
    await this.ended;
  }

  async #read(): Promise<void> {
    let error = new QmpError("QEMU has closed the connection");
    try {
      for await (const line of linesOf(this.#connection.readable)) this.#receive(JSON.parse(line));
    } catch (cause) {
      // What is no QMP may have lines without end, or messages that are no objects
      if (
        cause instanceof SyntaxError || cause instanceof TypeError || cause instanceof RangeError
      ) {
        error = new QmpError("Expected JSON from QMP, got other text; is it another socket?");
      }
    }
    this.#fail(error);
  }

  #fail(error: Error): void {
    this.#greeting.reject(error);
    const waiting = [...this.#answers.values(), ...this.#events.values()];
    for (const { reject } of waiting.flat()) reject(error);
    this.#answers.clear();
  }

  #receive({ QMP, id, event, data, error, return: result }: Message): void {
    if (QMP !== undefined) {
      this.#greeting.resolve();
    } else if (event !== undefined) {
      const waiting = this.#events.get(event) ?? [];
      this.#events.delete(event);
      for (const { resolve } of waiting) resolve(data);
      this.onEvent(event, data);
    } else if (id !== undefined) {
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      if (error) answer?.reject(new QmpError(error.desc));
      else answer?.resolve(result);
    }
  }
}
