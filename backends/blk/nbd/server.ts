/**
 * An NBD server as the main thread has it: connections are made here.
 *
 * @module
 */

import { drainEventfd, type Watch, watch } from "../../../src/linux/mod.ts";
import { Connector, type Export, exportOf } from "./connect.ts";
import { libnbd, type NbdHandle } from "./libnbd.ts";
import { Link } from "./link.ts";
import type { NbdTarget } from "./uri.ts";

/** How long connecting may take, in milliseconds. */
const CONNECT_MS = 10_000;

/** The pause before a connection is made again, which doubles with each failure, and the longest. */
const FIRST_PAUSE_MS = 20, LAST_PAUSE_MS = 1000;

/** A connection that is lost sooner counts as a failure. */
const STABLE_MS = 5000;

/** How a server is used. */
export interface ServerOptions {
  /** The most connections. */
  readonly connections: number;
  readonly readOnly: boolean;
  readonly structured: boolean;
  log(message: string): void;
  resized(bytes: number): void;
}

/** Keeps the places for connections filled. */
export class NbdServer {
  readonly link: Link;
  /** What the server said first; the size is that of the disk. */
  facts: Export;
  readonly #target: NbdTarget;
  readonly #connector: Connector;
  readonly #options: ServerOptions;
  readonly #watch: Watch;
  #reconnects = 0;
  #isConnecting = false;
  #isClosed = false;
  #pauseMs = FIRST_PAUSE_MS;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #resume: (() => void) | undefined;
  #connectedAt = performance.now();

  private constructor(
    target: NbdTarget,
    connector: Connector,
    options: ServerOptions,
    [first, ...others]: NbdHandle[],
  ) {
    this.#target = target;
    this.#connector = connector;
    this.#options = options;
    this.facts = exportOf(first);
    this.link = new Link(1 + others.length);
    [first, ...others].forEach((handle, place) => this.link.offer(place, handle));
    const { toMain } = this.link.handle;
    this.#watch = watch(toMain, "readable", () => {
      drainEventfd(toMain);
      void this.#connect();
    });
  }

  /**
   * Connects.
   *
   * @throws {Error} When the server cannot be reached or does not have the export.
   */
  static async open(target: NbdTarget, options: ServerOptions): Promise<NbdServer> {
    const connector = new Connector(target, options.structured);
    const handles: NbdHandle[] = [];
    try {
      handles.push(await connector.connect(CONNECT_MS));
      const { multiConn, readOnly } = exportOf(handles[0]);
      if (readOnly && !options.readOnly) {
        throw new Error("it can only be read; add --read-only");
      }
      while (multiConn && handles.length < options.connections) {
        handles.push(await connector.connect(CONNECT_MS));
      }
      return new NbdServer(target, connector, options, handles);
    } catch (cause) {
      for (const handle of handles) libnbd().close(handle);
      if (cause instanceof Deno.errors.NotCapable) throw cause;
      throw new Error(`Cannot open ${target.uri}: ${(cause as Error).message}`, { cause });
    }
  }

  /** Makes connections for empty places, one after the other. */
  async #connect(): Promise<void> {
    if (this.#isConnecting) return;
    this.#isConnecting = true;
    let told = false;
    if (performance.now() - this.#connectedAt > STABLE_MS) this.#pauseMs = FIRST_PAUSE_MS;
    else this.#lengthenPause();
    for (let place; (place = this.link.empty) >= 0;) {
      await this.#pause();
      if (this.#isClosed) break;
      try {
        const handle = await this.#connector.connect(CONNECT_MS);
        this.#accept(place, handle);
      } catch (error) {
        if (!told) this.#options.log(`${this.#target.uri}: ${(error as Error).message}`);
        told = true;
        this.#lengthenPause();
      }
    }
    this.#isConnecting = false;
  }

  /**
   * Offers a new connection to the queue thread.
   *
   * @throws {Error} When it leads to another disk.
   */
  #accept(place: number, handle: NbdHandle): void {
    try {
      if (this.#isClosed) throw new Error("it is closed");
      const now = exportOf(handle), { facts } = this;
      const grown = now.bytes - facts.bytes;
      if (grown < 0) {
        throw new Error(
          `Expected at least ${facts.bytes} bytes, the server's disk has ${now.bytes} now`,
        );
      }
      const lost = (["flush", "trim", "zero"] as const).find((name) => facts[name] && !now[name]);
      if (lost !== undefined) throw new Error(`Expected a server with ${lost}, as before`);
      if (now.readOnly && !facts.readOnly) throw new Error("Expected a disk to write, as before");
      if (now.minBlockBytes > Math.max(facts.minBlockBytes, 512)) {
        throw new Error(`Expected blocks of ${facts.minBlockBytes} bytes, as before`);
      }
      if (grown > 0) {
        this.facts = { ...facts, bytes: now.bytes };
        this.#options.resized(now.bytes);
      }
    } catch (error) {
      libnbd().close(handle);
      throw error;
    }
    this.#connectedAt = performance.now();
    this.#reconnects++;
    this.link.offer(place, handle);
  }

  async #pause(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#resume = resolve;
      this.#timer = setTimeout(resolve, this.#pauseMs);
    });
  }

  #lengthenPause(): void {
    this.#pauseMs = Math.min(2 * this.#pauseMs, LAST_PAUSE_MS);
  }

  report(): Record<string, unknown> {
    return {
      server: this.#target.server,
      export: this.#target.exportName,
      connections: this.link.count,
      reconnects: this.#reconnects,
    };
  }

  /** Ends, after the queue thread. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#resume?.();
    this.#watch[Symbol.dispose]();
    for (let place = 0; place < this.link.count; place++) {
      const handle = this.link.take(place);
      if (handle !== undefined) libnbd().close(handle);
    }
    this.link[Symbol.dispose]();
  }
}
