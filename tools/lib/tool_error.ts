/** A failure whose message is all that a person needs: it is printed without a stack. */
export class ToolError extends Error {
  override name = "ToolError";
}
