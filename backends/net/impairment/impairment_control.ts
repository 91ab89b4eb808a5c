/**
 * The control half of impairments: what is in force, and the commands that change it.
 *
 * @module
 */

import type { DeviceCommand, OptionValues } from "../../../mod.ts";
import {
  type Impairment,
  impairmentFrom,
  impairmentJson,
  type impairmentOptions,
  isClean,
  parseImpairBody,
  parseLinkBody,
} from "./impairment.ts";

/** What it needs of its card. */
export interface ImpairmentContext {
  /** Sends an impairment to the data half, which applies it from now on. */
  put(impairment: Impairment): Promise<unknown>;
  /** Tells the medium that the link goes down or comes up. */
  setLink(isUp: boolean): void;
}

/** The impairment of a device, as its control half sees it. */
export class ImpairmentControl {
  /** What is in force. */
  current: Impairment;
  readonly #context: ImpairmentContext;

  /** @throws {OptionError} When an option is wrong. */
  constructor(options: OptionValues<typeof impairmentOptions>, context: ImpairmentContext) {
    this.current = impairmentFrom(options);
    this.#context = context;
  }

  /** Commands for the control socket. */
  readonly commands: Readonly<Record<"impair" | "link", DeviceCommand>> = {
    impair: {
      about:
        'Delays and loses packets: {"delay":"20ms","loss":"tx:1%"}, {} for none; answers what is in force',
      run: async (body) => {
        if (body !== undefined) await this.#set(parseImpairBody(body, this.current));
        return impairmentJson(this.current);
      },
    },
    link: {
      about: 'Unplugs the cable and plugs it in: {"up":false}; answers the state',
      run: async (body) => {
        if (body !== undefined) {
          const isLinkUp = parseLinkBody(body);
          if (isLinkUp !== this.current.isLinkUp) this.#context.setLink(isLinkUp);
          await this.#set({ ...this.current, isLinkUp });
        }
        return { up: this.current.isLinkUp };
      },
    },
  };

  async #set(impairment: Impairment): Promise<void> {
    this.current = impairment;
    await this.#context.put(impairment);
  }

  /** Returns what it adds to the record. */
  report(): Record<string, unknown> {
    const { isLinkUp } = this.current;
    return {
      link: isLinkUp ? "up" : "down",
      ...!isClean({ ...this.current, isLinkUp: true }) &&
        { impairment: impairmentJson(this.current) },
    };
  }
}
