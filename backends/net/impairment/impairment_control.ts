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

/** The impairment of a device, as its control half sees it. */
export class ImpairmentControl {
  /** What is in force. */
  current: Impairment;
  /** Called when the link goes down or comes up. */
  onLink: (isUp: boolean) => void = () => {};
  readonly #post: (message: Impairment) => Promise<unknown>;

  /**
   * @param post Sends a message to the data half; it puts the impairment in force.
   * @throws {OptionError} When an option is wrong.
   */
  constructor(
    options: OptionValues<typeof impairmentOptions>,
    post: (message: Impairment) => Promise<unknown>,
  ) {
    this.current = impairmentFrom(options);
    this.#post = post;
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
          if (isLinkUp !== this.current.isLinkUp) this.onLink(isLinkUp);
          await this.#set({ ...this.current, isLinkUp });
        }
        return { up: this.current.isLinkUp };
      },
    },
  };

  async #set(impairment: Impairment): Promise<void> {
    this.current = impairment;
    await this.#post(impairment);
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
