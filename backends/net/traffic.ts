/**
 * The control half of what happens to packets on their way: impairments and captures.
 *
 * @module
 */

import type { DeviceCommand, OptionValues } from "../../mod.ts";
import type { CapturePlan } from "./capture/capture_ring.ts";
import { type captureOptions, Recorder } from "./capture/recorder.ts";
import { ImpairmentControl } from "./impairment/impairment_control.ts";
import type { Impairment, impairmentOptions } from "./impairment/impairment.ts";

/** What the user asks for. */
export type TrafficOptions =
  & OptionValues<typeof impairmentOptions>
  & OptionValues<typeof captureOptions>;

/** A message to the data half. */
export interface TrafficMessage {
  readonly impairment?: Impairment;
  /** Null ends the capture. */
  readonly capture?: CapturePlan | null;
}

/** What it needs of its port. */
export interface TrafficContext {
  /** The name of the port in captures. */
  readonly name: string;
  /** The number of pairs of queues. */
  readonly pairs: number;
  post(message: TrafficMessage): Promise<unknown>;
  /** Tells the medium that the link goes down or comes up. */
  setLink?(isUp: boolean): void;
  log(message: string): void;
}

/** The impairments and captures of a port. */
export class Traffic implements AsyncDisposable {
  readonly #impairment: ImpairmentControl;
  readonly #recorder: Recorder;

  /** @throws {OptionError} When an option is wrong. */
  constructor(options: TrafficOptions, { name, pairs, post, setLink, log }: TrafficContext) {
    this.#impairment = new ImpairmentControl(options, {
      put: (impairment) => post({ impairment }),
      setLink: (isUp) => setLink?.(isUp),
    });
    const toPost = (capture: CapturePlan | null) => post({ capture });
    this.#recorder = new Recorder(options, { name, pairs, log, post: toPost });
  }

  /** What the data half begins with. */
  get shared(): Required<TrafficMessage> {
    return { impairment: this.#impairment.current, capture: this.#recorder.plan };
  }

  /** Hears from the data half that there are captured packets. */
  onMessage(): void {
    this.#recorder.onMessage();
  }

  /** Commands of the control socket. */
  get commands(): ImpairmentControl["commands"] {
    return this.#impairment.commands;
  }

  /** Queries of the control socket. */
  readonly queries: { readonly pcap: DeviceCommand } = {
    pcap: {
      about: "Packets from now on, as a pcapng file",
      run: () => this.#recorder.open(),
    },
  };

  /** Returns what it adds to the record. */
  report(): Record<string, unknown> {
    return { ...this.#impairment.report(), ...this.#recorder.report() };
  }

  /** Ends captures, and waits a moment until their file is written. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#recorder[Symbol.asyncDispose]();
  }
}
