import { type Fd, inspectSocket, UnixConnection } from "../../linux/mod.ts";
import { backendMessages } from "../../vhost_user/mod.ts";
import type { KeptConfig } from "./kept_config.ts";
import { kept, RequestError, type RequestHandlers } from "./request_handlers.ts";
import type { SessionState } from "./state.ts";

/** SET_CONFIG, flags: the front-end restores the space of a migrated device. */
const CONFIG_MIGRATION = 1;

/** Config space, and the channel on which its changes are announced. */
export class SessionConfig {
  /** Requests about config space; none of a device whose config space the front-end makes itself. */
  readonly requests: RequestHandlers;
  readonly #state: SessionState;
  #backChannel: UnixConnection | undefined;
  /** Config changed, and the front-end does not know it yet. */
  #changed = false;
  #announcing = false;
  /** The front-end read config space, or was told to. */
  #isKnown = false;

  constructor(state: SessionState) {
    this.#state = state;
    const { host } = state;
    this.requests = {
      SET_BACKEND_REQ_FD: (_, { fds }) => this.#setBackChannel(fds[0]),
      // QEMU strips CONFIG, with a warning, from devices whose config space it makes itself.
      ...(host.config.layout.size > 0 && {
        GET_CONFIG: (message) => {
          host.control.onConfigRead?.(message.offset, message.size);
          const data = host.config.read(message.offset, message.size);
          host.record.configUsed("configReads");
          this.#isKnown = true;
          return { ...message, data };
        },
        SET_CONFIG: ({ offset, data, flags }) => {
          this.#write(offset, data, flags === CONFIG_MIGRATION);
          host.record.configUsed("configWrites");
        },
      } satisfies RequestHandlers),
    };
  }

  #write(offset: number, data: Uint8Array, migration: boolean): void {
    const { config, control } = this.#state.host;
    const write = config.write(offset, data, {
      migration,
      check: (write) => control.onConfigWrite?.(write),
    });
    control.onConfigWritten?.(write);
    this.keep();
  }

  /** Keeps config space behind the in-flight records, for another back-end. */
  keep(): void {
    const { inflight, host: { config } } = this.#state;
    inflight?.keptConfig(config.layout)?.keep(config.bytes);
  }

  /** Writes what the driver had written while another back-end served it. */
  restore(kept: KeptConfig): void {
    const { config, control, record } = this.#state.host;
    for (const { offset, data } of kept.differences(config.bytes)) {
      try {
        this.#write(offset, data, true);
      } catch (error) {
        record.refused("SET_INFLIGHT_FD", (error as Error).message);
      }
    }
    // Its front-end has read that, from the other back-end.
    control.onConfigRead?.(0, config.bytes.length);
  }

  /**
   * A ring started. A front-end that reconnects for a running guest reads nothing: it has config
   * space as another connection or process showed it.
   *
   * @param isResumed The ring was in use before.
   */
  ringStarted(isResumed: boolean): void {
    if (!this.#isKnown && isResumed && this.#state.hasProtocol("CONFIG")) {
      this.#isKnown = this.#changed = true;
    }
    this.#announceIfChanged();
  }

  /** The device changed config space. */
  deviceChanged(): void {
    this.#changed = true;
    this.#announceIfChanged();
  }

  #announceIfChanged(): void {
    // Not awaited: a peer that ignores the back-channel must still get replies.
    if (this.#changed) void this.#announce();
  }

  /**
   * Sends CONFIG_CHANGE_MSG. QEMU drops it, or crashes, while no ring runs (seen with gpio, input,
   * sound and vsock), so it is kept until one does.
   */
  async #announce(): Promise<void> {
    // One at a time: a front-end that reads none finds one for all when it does.
    if (this.#announcing) return;
    const { host: { record, wire }, rings } = this.#state;
    this.#announcing = true;
    try {
      while (
        this.#changed && this.#backChannel !== undefined && this.#state.hasProtocol("CONFIG") &&
        rings.some(({ running }) => running)
      ) {
        this.#changed = false;
        // No acknowledgement is asked for: QEMU gives none while it waits for a reply itself.
        const message = backendMessages.encode({ request: "CONFIG_CHANGE_MSG" });
        wire.sent(message, 0, "back");
        await this.#backChannel.send(message);
        record.configUsed("announcements");
      }
    } catch (error) {
      record.refused("CONFIG_CHANGE_MSG", (error as Error).message);
    } finally {
      this.#announcing = false;
    }
  }

  async #setBackChannel(fd: Fd): Promise<void> {
    if (inspectSocket(fd.number) !== "connected") {
      throw new RequestError("Expected a connected socket, got one that listens");
    }
    const channel = new UnixConnection(kept(fd));
    await this.closeBackChannel();
    this.#backChannel = channel;
    this.#announceIfChanged();
  }

  async closeBackChannel(): Promise<void> {
    const channel = this.#backChannel;
    this.#backChannel = undefined;
    if (channel === undefined) return;
    const { host: { quarantine } } = this.#state;
    await this.#state.unlessStuck("SET_BACKEND_REQ_FD", channel.closeIn(quarantine));
  }
}
