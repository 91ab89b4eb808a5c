/**
 * How far a protocol fault reaches.
 *
 * - `"stream"`: the bytes can no longer be told apart into messages, so the connection has to end.
 * - `"message"`: this message is wrong, the next one can be read. It gets an error reply where the
 *   protocol has one, and changes nothing.
 */
export type FaultScope = "stream" | "message";

/**
 * Thrown when received bytes break the vhost-user protocol. What the caller of this codec got wrong
 * itself (a number out of range to encode, say) is a `RangeError` instead.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { ProtocolError } from "./mod.ts";
 *
 * const error = new ProtocolError("message", "Expected no fds, got 1", "SET_OWNER");
 * assertEquals(error.message, "SET_OWNER: Expected no fds, got 1");
 * assertEquals(error.scope, "message");
 * ```
 */
export class ProtocolError extends Error {
  /** Always `"ProtocolError"`. */
  override readonly name = "ProtocolError";
  /** How far the fault reaches. */
  readonly scope: FaultScope;
  /** The request that was wrong, by name, where it is known. */
  readonly request?: string;

  /**
   * An error that names the expected and the received value.
   *
   * @param scope How far the fault reaches
   * @param message What was expected and what came
   * @param request The request's name, put in front of the message
   */
  constructor(scope: FaultScope, message: string, request?: string) {
    super(request === undefined ? message : `${request}: ${message}`);
    this.scope = scope;
    if (request !== undefined) this.request = request;
  }
}
