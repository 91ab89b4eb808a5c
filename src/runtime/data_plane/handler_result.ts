/**
 * The result of a handler.
 *
 * @module
 */

import type { AnyDevice, HandlerResult, QueueHandle } from "../../virtio/mod.ts";
import type { Chain } from "../../virtqueue/mod.ts";

/** The handler of a queue whose sender is the driver. */
export type Handler = (chain: Chain, queue: QueueHandle) => HandlerResult;

/** Whether a value is a promise, of this realm or not. */
export function isPromise<T>(value: unknown): value is Promise<T> {
  return typeof (value as Promise<T> | undefined | null)?.then === "function";
}

/** The error for a result that is not a possible number of bytes. */
export function wrongResult(
  queue: QueueHandle,
  { name, module }: AnyDevice,
  { writableBytes }: Chain,
  result: unknown,
): TypeError {
  const shown = Deno.inspect(result, { depth: 0 }).slice(0, 40);
  return new TypeError(
    `Expected the bytes written (0 to ${writableBytes}), a promise of that, LATER, NOT_NOW or UNTIL_READY from the handler of queue ${queue.name} of device ${name} (${module}), got ${shown}`,
  );
}
