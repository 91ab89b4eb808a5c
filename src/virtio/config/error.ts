/**
 * The error of a refused access to config space.
 *
 * @module
 */

/**
 * Thrown when an access to config space lies outside it, or writes what the driver may not write.
 * Nothing has changed then.
 *
 * @example Refuse what lies outside
 * ```ts
 * import { ConfigAccessError } from "./error.ts";
 * import { ConfigSpace } from "./space.ts";
 * import { packed } from "./layout.ts";
 * import { u32 } from "./fields.ts";
 * import { assertThrows } from "@std/assert";
 *
 * const space = new ConfigSpace(packed({ guests: u32("Guests so far") }));
 * assertThrows(() => space.read(2, 4), ConfigAccessError, "outside");
 * ```
 */
export class ConfigAccessError extends RangeError {
  /** Always `"ConfigAccessError"`. */
  override readonly name = "ConfigAccessError";
  /** The field whose rule the access broke, if it concerns one. */
  readonly field: string | undefined;

  /** An error with this message, about this field. */
  constructor(message: string, field?: string) {
    super(message);
    this.field = field;
  }
}
