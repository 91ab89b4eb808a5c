/**
 * Why a front-end's call did not succeed.
 *
 * - `"refused"`: the back-end answered with an error.
 * - `"closed"`: the connection ended.
 * - `"timeout"`: nothing came in time.
 * - `"device"`: the device broke a rule of the virtqueue, or said that the queue is broken (its
 *   error eventfd was signalled).
 */
export type FrontendErrorReason = "refused" | "closed" | "timeout" | "device";

/**
 * Thrown when the back-end or device fails a request. Mistakes of the caller throw `RangeError` or
 * `TypeError` instead, and bytes that are no vhost-user reply a `ProtocolError`.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { FrontendError } from "@vhostd/vhostd/frontend";
 *
 * const error = new FrontendError("refused", "SET_OWNER: Expected success, got error 1");
 * assertEquals(error.reason, "refused");
 * ```
 */
export class FrontendError extends Error {
  /** Always `"FrontendError"`. */
  override readonly name = "FrontendError";
  /** Why it failed. */
  readonly reason: FrontendErrorReason;

  /**
   * Makes an error.
   *
   * @param reason Why it failed
   * @param message What was expected and what came
   * @param options The `cause`, where there is one
   */
  constructor(reason: FrontendErrorReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}
