/** QMP, by which QEMU is told what to do and tells what happened. */
import { lines, writeAll } from "../lib/process.ts";
import { ToolError } from "../lib/tool_error.ts";

/** What QEMU sends: an answer, an error or an event. */
interface Message {
  return?: unknown;
  error?: { class: string; desc: string };
  event?: string;
  data?: unknown;
  id?: number;
}

export class Qmp {
  #connection: Deno.Conn;
  #answers = new Map<number, PromiseWithResolvers<unknown>>();
  #events = new Map<string, PromiseWithResolvers<unknown>[]>();
  #nextId = 1;
  #reading: Promise<void>;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
    this.#reading = this.#read();
  }

  /** Takes QEMU's connection, and gets it ready for commands. */
  static async accept(listener: Deno.Listener): Promise<Qmp> {
    const qmp = new Qmp(await listener.accept());
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  /** Runs a command; returns what QEMU answers. */
  async execute(command: string, args?: object): Promise<unknown> {
    const id = this.#nextId++;
    const answer = Promise.withResolvers<unknown>();
    this.#answers.set(id, answer);
    const line = JSON.stringify({ execute: command, arguments: args, id });
    try {
      await writeAll(this.#connection, `${line}\n`);
      return await answer.promise;
    } catch (error) {
      throw new ToolError(`QMP ${command}: ${(error as Error).message}`);
    }
  }

  /** Waits for the next event of a name; resolves to the event's data. */
  event(name: string): Promise<unknown> {
    const waiting = Promise.withResolvers<unknown>();
    // Nobody may be left to listen when QEMU ends.
    waiting.promise.catch(() => {});
    this.#events.set(name, [...this.#events.get(name) ?? [], waiting]);
    return waiting.promise;
  }

  /** Closes the connection, from either side. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#connection.close();
    } catch (error) {
      // QEMU closed it first, and the reader took note.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    await this.#reading;
  }

  async #read(): Promise<void> {
    try {
      for await (const line of lines(this.#connection.readable)) this.#receive(JSON.parse(line));
    } catch {
      // The connection is gone, which is no news at the end of QEMU.
    }
    const error = new ToolError("QEMU has closed the connection");
    const waiting = [...this.#answers.values(), ...this.#events.values()];
    for (const { reject } of waiting.flat()) reject(error);
  }

  #receive({ id, event, data, error, return: result }: Message): void {
    if (event !== undefined) {
      const waiting = this.#events.get(event) ?? [];
      this.#events.delete(event);
      for (const { resolve } of waiting) resolve(data);
    } else if (id !== undefined) {
      const answer = this.#answers.get(id);
      this.#answers.delete(id);
      if (error) answer?.reject(new ToolError(error.desc));
      else answer?.resolve(result);
    }
  }
}
