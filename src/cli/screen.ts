/**
 * Shows something that changes, on a terminal's screen or as text.
 *
 * @module
 */

/** Time between two states. */
const PERIOD_MS = 1000;

/** Clears the screen, turns wrapping off so that long lines are cut, and hides the cursor. */
const SCREEN_BEGIN = "\x1b[2J\x1b[?7l\x1b[?25l";

/** Turns wrapping on and shows the cursor. */
const SCREEN_END = "\x1b[?7h\x1b[?25h";

/** How states are read and shown. */
export interface Watched<T> {
  /** Reads the current state; undefined ends it, and the last state stays. */
  read(): Promise<T | undefined>;
  /** Whether a terminal's screen keeps the last state. */
  readonly isScreen: boolean;
  /** The text of a state, from the top of the screen or after the one before. */
  text(current: T, previous: T | undefined): string;
}

/** Shows states periodically, until SIGINT, SIGTERM or the end of what is read. */
export async function watchStates<T>(
  first: T,
  { read, isScreen, text }: Watched<T>,
): Promise<void> {
  const stop = Promise.withResolvers<"stop">();
  const onSignal = () => stop.resolve("stop");
  Deno.addSignalListener("SIGINT", onSignal);
  Deno.addSignalListener("SIGTERM", onSignal);
  let current: T | undefined = first;
  let previous: T | undefined;
  if (isScreen) print(SCREEN_BEGIN);
  try {
    while (current !== undefined) {
      print(text(current, previous));
      if (await Promise.race([stop.promise, later(PERIOD_MS)]) === "stop") return;
      previous = current;
      current = await read();
    }
  } finally {
    if (isScreen) print(SCREEN_END);
    Deno.removeSignalListener("SIGINT", onSignal);
    Deno.removeSignalListener("SIGTERM", onSignal);
  }
}

function later(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The text that puts lines at the top of the screen and clears the rest. */
export function screenful(lines: readonly string[]): string {
  return `\x1b[H${lines.map((line) => `${line}\x1b[K\n`).join("")}\x1b[J`;
}

/** Prints a text on stdout. */
export function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}
