/** What a soak ends with that found something, or cannot begin; the message says all. */
export class SoakError extends Error {
  override name = "SoakError";
}
