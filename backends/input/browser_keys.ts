/**
 * Keys as browsers name them by their place (UI Events KeyboardEvent code Values), and as Linux does.
 *
 * @module
 */

const NAMES: Readonly<Record<string, string>> = {
  ArrowDown: "DOWN",
  ArrowLeft: "LEFT",
  ArrowRight: "RIGHT",
  ArrowUp: "UP",
  Backquote: "GRAVE",
  Backslash: "BACKSLASH",
  BracketLeft: "LEFTBRACE",
  BracketRight: "RIGHTBRACE",
  ContextMenu: "COMPOSE",
  Equal: "EQUAL",
  Escape: "ESC",
  IntlBackslash: "102ND",
  NumpadAdd: "KPPLUS",
  NumpadDecimal: "KPDOT",
  NumpadDivide: "KPSLASH",
  NumpadEnter: "KPENTER",
  NumpadMultiply: "KPASTERISK",
  NumpadSubtract: "KPMINUS",
  Period: "DOT",
  PrintScreen: "SYSRQ",
  Quote: "APOSTROPHE",
};

/** Linux's name of a key; undefined for one that keyboards of the device lack. */
export function keyOf(code: string): string | undefined {
  const name = Object.hasOwn(NAMES, code) ? NAMES[code] : code
    .replace(/^(Key|Digit)(?=.$)/, "")
    .replace(
      /^(Alt|Control|Meta|Shift)(Left|Right)$/,
      (_code, key: string, side: string) => side + ({ Control: "Ctrl" }[key] ?? key),
    )
    .replace(/^Numpad(\d)$/, "KP$1");
  return /^[A-Za-z0-9]{1,12}$/.test(name) ? `KEY_${name.toUpperCase()}` : undefined;
}
