/**
 * The event types and codes of Linux, by its names: virtio-input carries them as
 * they are (virtio 1.3, 5.8.6 Device Operation).
 *
 * The numbers are those of `linux/input-event-codes.h`; a test compares them.
 * What has no name here is written as its number.
 *
 * @module
 */

/** Numbers by their Linux names. */
export type CodeTable = Readonly<Record<string, number>>;

/** Event types. */
export const EV = {
  EV_SYN: 0x0,
  EV_KEY: 0x1,
  EV_REL: 0x2,
  EV_ABS: 0x3,
  EV_MSC: 0x4,
  EV_SW: 0x5,
  EV_LED: 0x11,
  EV_SND: 0x12,
  EV_REP: 0x14,
  EV_FF: 0x15,
  EV_PWR: 0x16,
  EV_FF_STATUS: 0x17,
} as const satisfies CodeTable;

/** Codes of EV_SYN. */
export const SYN = {
  SYN_REPORT: 0,
  SYN_CONFIG: 1,
  SYN_MT_REPORT: 2,
  SYN_DROPPED: 3,
} as const satisfies CodeTable;

/** Codes of EV_KEY: the keys of a full keyboard, and the buttons of mice and tablets. */
export const KEY = {
  KEY_ESC: 1,
  KEY_1: 2,
  KEY_2: 3,
  KEY_3: 4,
  KEY_4: 5,
  KEY_5: 6,
  KEY_6: 7,
  KEY_7: 8,
  KEY_8: 9,
  KEY_9: 10,
  KEY_0: 11,
  KEY_MINUS: 12,
  KEY_EQUAL: 13,
  KEY_BACKSPACE: 14,
  KEY_TAB: 15,
  KEY_Q: 16,
  KEY_W: 17,
  KEY_E: 18,
  KEY_R: 19,
  KEY_T: 20,
  KEY_Y: 21,
  KEY_U: 22,
  KEY_I: 23,
  KEY_O: 24,
  KEY_P: 25,
  KEY_LEFTBRACE: 26,
  KEY_RIGHTBRACE: 27,
  KEY_ENTER: 28,
  KEY_LEFTCTRL: 29,
  KEY_A: 30,
  KEY_S: 31,
  KEY_D: 32,
  KEY_F: 33,
  KEY_G: 34,
  KEY_H: 35,
  KEY_J: 36,
  KEY_K: 37,
  KEY_L: 38,
  KEY_SEMICOLON: 39,
  KEY_APOSTROPHE: 40,
  KEY_GRAVE: 41,
  KEY_LEFTSHIFT: 42,
  KEY_BACKSLASH: 43,
  KEY_Z: 44,
  KEY_X: 45,
  KEY_C: 46,
  KEY_V: 47,
  KEY_B: 48,
  KEY_N: 49,
  KEY_M: 50,
  KEY_COMMA: 51,
  KEY_DOT: 52,
  KEY_SLASH: 53,
  KEY_RIGHTSHIFT: 54,
  KEY_KPASTERISK: 55,
  KEY_LEFTALT: 56,
  KEY_SPACE: 57,
  KEY_CAPSLOCK: 58,
  KEY_F1: 59,
  KEY_F2: 60,
  KEY_F3: 61,
  KEY_F4: 62,
  KEY_F5: 63,
  KEY_F6: 64,
  KEY_F7: 65,
  KEY_F8: 66,
  KEY_F9: 67,
  KEY_F10: 68,
  KEY_NUMLOCK: 69,
  KEY_SCROLLLOCK: 70,
  KEY_KP7: 71,
  KEY_KP8: 72,
  KEY_KP9: 73,
  KEY_KPMINUS: 74,
  KEY_KP4: 75,
  KEY_KP5: 76,
  KEY_KP6: 77,
  KEY_KPPLUS: 78,
  KEY_KP1: 79,
  KEY_KP2: 80,
  KEY_KP3: 81,
  KEY_KP0: 82,
  KEY_KPDOT: 83,
  KEY_ZENKAKUHANKAKU: 85,
  KEY_102ND: 86,
  KEY_F11: 87,
  KEY_F12: 88,
  KEY_RO: 89,
  KEY_KATAKANA: 90,
  KEY_HIRAGANA: 91,
  KEY_HENKAN: 92,
  KEY_KATAKANAHIRAGANA: 93,
  KEY_MUHENKAN: 94,
  KEY_KPJPCOMMA: 95,
  KEY_KPENTER: 96,
  KEY_RIGHTCTRL: 97,
  KEY_KPSLASH: 98,
  KEY_SYSRQ: 99,
  KEY_RIGHTALT: 100,
  KEY_LINEFEED: 101,
  KEY_HOME: 102,
  KEY_UP: 103,
  KEY_PAGEUP: 104,
  KEY_LEFT: 105,
  KEY_RIGHT: 106,
  KEY_END: 107,
  KEY_DOWN: 108,
  KEY_PAGEDOWN: 109,
  KEY_INSERT: 110,
  KEY_DELETE: 111,
  KEY_MACRO: 112,
  KEY_MUTE: 113,
  KEY_VOLUMEDOWN: 114,
  KEY_VOLUMEUP: 115,
  KEY_POWER: 116,
  KEY_KPEQUAL: 117,
  KEY_KPPLUSMINUS: 118,
  KEY_PAUSE: 119,
  KEY_SCALE: 120,
  KEY_KPCOMMA: 121,
  KEY_HANGEUL: 122,
  KEY_HANJA: 123,
  KEY_YEN: 124,
  KEY_LEFTMETA: 125,
  KEY_RIGHTMETA: 126,
  KEY_COMPOSE: 127,
  KEY_STOP: 128,
  KEY_AGAIN: 129,
  KEY_PROPS: 130,
  KEY_UNDO: 131,
  KEY_FRONT: 132,
  KEY_COPY: 133,
  KEY_OPEN: 134,
  KEY_PASTE: 135,
  KEY_FIND: 136,
  KEY_CUT: 137,
  KEY_HELP: 138,
  KEY_MENU: 139,
  KEY_CALC: 140,
  KEY_SETUP: 141,
  KEY_SLEEP: 142,
  KEY_WAKEUP: 143,
  KEY_FILE: 144,
  KEY_SENDFILE: 145,
  KEY_DELETEFILE: 146,
  KEY_XFER: 147,
  KEY_PROG1: 148,
  KEY_PROG2: 149,
  KEY_WWW: 150,
  KEY_MSDOS: 151,
  KEY_COFFEE: 152,
  KEY_ROTATE_DISPLAY: 153,
  KEY_CYCLEWINDOWS: 154,
  KEY_MAIL: 155,
  KEY_BOOKMARKS: 156,
  KEY_COMPUTER: 157,
  KEY_BACK: 158,
  KEY_FORWARD: 159,
  KEY_CLOSECD: 160,
  KEY_EJECTCD: 161,
  KEY_EJECTCLOSECD: 162,
  KEY_NEXTSONG: 163,
  KEY_PLAYPAUSE: 164,
  KEY_PREVIOUSSONG: 165,
  KEY_STOPCD: 166,
  KEY_RECORD: 167,
  KEY_REWIND: 168,
  KEY_PHONE: 169,
  KEY_ISO: 170,
  KEY_CONFIG: 171,
  KEY_HOMEPAGE: 172,
  KEY_REFRESH: 173,
  KEY_EXIT: 174,
  KEY_MOVE: 175,
  KEY_EDIT: 176,
  KEY_SCROLLUP: 177,
  KEY_SCROLLDOWN: 178,
  KEY_KPLEFTPAREN: 179,
  KEY_KPRIGHTPAREN: 180,
  KEY_NEW: 181,
  KEY_REDO: 182,
  KEY_F13: 183,
  KEY_F14: 184,
  KEY_F15: 185,
  KEY_F16: 186,
  KEY_F17: 187,
  KEY_F18: 188,
  KEY_F19: 189,
  KEY_F20: 190,
  KEY_F21: 191,
  KEY_F22: 192,
  KEY_F23: 193,
  KEY_F24: 194,
  KEY_PLAYCD: 200,
  KEY_PAUSECD: 201,
  KEY_PROG3: 202,
  KEY_PROG4: 203,
  KEY_ALL_APPLICATIONS: 204,
  KEY_SUSPEND: 205,
  KEY_CLOSE: 206,
  KEY_PLAY: 207,
  KEY_FASTFORWARD: 208,
  KEY_BASSBOOST: 209,
  KEY_PRINT: 210,
  KEY_HP: 211,
  KEY_CAMERA: 212,
  KEY_SOUND: 213,
  KEY_QUESTION: 214,
  KEY_EMAIL: 215,
  KEY_CHAT: 216,
  KEY_SEARCH: 217,
  KEY_CONNECT: 218,
  KEY_FINANCE: 219,
  KEY_SPORT: 220,
  KEY_SHOP: 221,
  KEY_ALTERASE: 222,
  KEY_CANCEL: 223,
  KEY_BRIGHTNESSDOWN: 224,
  KEY_BRIGHTNESSUP: 225,
  KEY_MEDIA: 226,
  KEY_SWITCHVIDEOMODE: 227,
  KEY_KBDILLUMTOGGLE: 228,
  KEY_KBDILLUMDOWN: 229,
  KEY_KBDILLUMUP: 230,
  KEY_SEND: 231,
  KEY_REPLY: 232,
  KEY_FORWARDMAIL: 233,
  KEY_SAVE: 234,
  KEY_DOCUMENTS: 235,
  KEY_BATTERY: 236,
  KEY_BLUETOOTH: 237,
  KEY_WLAN: 238,
  KEY_UWB: 239,
  KEY_VIDEO_NEXT: 241,
  KEY_VIDEO_PREV: 242,
  KEY_BRIGHTNESS_CYCLE: 243,
  KEY_BRIGHTNESS_AUTO: 244,
  KEY_DISPLAY_OFF: 245,
  KEY_WWAN: 246,
  KEY_RFKILL: 247,
  KEY_MICMUTE: 248,
  BTN_LEFT: 0x110,
  BTN_RIGHT: 0x111,
  BTN_MIDDLE: 0x112,
  BTN_SIDE: 0x113,
  BTN_EXTRA: 0x114,
  BTN_FORWARD: 0x115,
  BTN_BACK: 0x116,
  BTN_TASK: 0x117,
  BTN_TOOL_PEN: 0x140,
  BTN_TOOL_RUBBER: 0x141,
  BTN_TOOL_FINGER: 0x145,
  BTN_TOUCH: 0x14a,
  BTN_STYLUS: 0x14b,
  BTN_STYLUS2: 0x14c,
  BTN_TOOL_DOUBLETAP: 0x14d,
  BTN_TOOL_TRIPLETAP: 0x14e,
  KEY_FN: 0x1d0,
} as const satisfies CodeTable;

/** Codes of EV_REL. */
export const REL = {
  REL_X: 0x0,
  REL_Y: 0x1,
  REL_Z: 0x2,
  REL_RX: 0x3,
  REL_RY: 0x4,
  REL_RZ: 0x5,
  REL_HWHEEL: 0x6,
  REL_DIAL: 0x7,
  REL_WHEEL: 0x8,
  REL_MISC: 0x9,
  REL_WHEEL_HI_RES: 0xb,
  REL_HWHEEL_HI_RES: 0xc,
} as const satisfies CodeTable;

/** Codes of EV_ABS. */
export const ABS = {
  ABS_X: 0x0,
  ABS_Y: 0x1,
  ABS_Z: 0x2,
  ABS_RX: 0x3,
  ABS_RY: 0x4,
  ABS_RZ: 0x5,
  ABS_THROTTLE: 0x6,
  ABS_RUDDER: 0x7,
  ABS_WHEEL: 0x8,
  ABS_GAS: 0x9,
  ABS_BRAKE: 0xa,
  ABS_HAT0X: 0x10,
  ABS_HAT0Y: 0x11,
  ABS_HAT1X: 0x12,
  ABS_HAT1Y: 0x13,
  ABS_HAT2X: 0x14,
  ABS_HAT2Y: 0x15,
  ABS_HAT3X: 0x16,
  ABS_HAT3Y: 0x17,
  ABS_PRESSURE: 0x18,
  ABS_DISTANCE: 0x19,
  ABS_TILT_X: 0x1a,
  ABS_TILT_Y: 0x1b,
  ABS_TOOL_WIDTH: 0x1c,
  ABS_VOLUME: 0x20,
  ABS_PROFILE: 0x21,
  ABS_MISC: 0x28,
  ABS_MT_SLOT: 0x2f,
  ABS_MT_TOUCH_MAJOR: 0x30,
  ABS_MT_TOUCH_MINOR: 0x31,
  ABS_MT_WIDTH_MAJOR: 0x32,
  ABS_MT_WIDTH_MINOR: 0x33,
  ABS_MT_ORIENTATION: 0x34,
  ABS_MT_POSITION_X: 0x35,
  ABS_MT_POSITION_Y: 0x36,
  ABS_MT_TOOL_TYPE: 0x37,
  ABS_MT_BLOB_ID: 0x38,
  ABS_MT_TRACKING_ID: 0x39,
  ABS_MT_PRESSURE: 0x3a,
  ABS_MT_DISTANCE: 0x3b,
  ABS_MT_TOOL_X: 0x3c,
  ABS_MT_TOOL_Y: 0x3d,
} as const satisfies CodeTable;

/** Codes of EV_MSC. */
export const MSC = {
  MSC_SERIAL: 0,
  MSC_PULSELED: 1,
  MSC_GESTURE: 2,
  MSC_RAW: 3,
  MSC_SCAN: 4,
  MSC_TIMESTAMP: 5,
} as const satisfies CodeTable;

/** Codes of EV_SW. */
export const SW = {
  SW_LID: 0,
  SW_TABLET_MODE: 1,
  SW_HEADPHONE_INSERT: 2,
  SW_RFKILL_ALL: 3,
  SW_MICROPHONE_INSERT: 4,
  SW_DOCK: 5,
  SW_LINEOUT_INSERT: 6,
  SW_JACK_PHYSICAL_INSERT: 7,
  SW_VIDEOOUT_INSERT: 8,
  SW_CAMERA_LENS_COVER: 9,
  SW_KEYPAD_SLIDE: 10,
  SW_FRONT_PROXIMITY: 11,
  SW_ROTATE_LOCK: 12,
  SW_LINEIN_INSERT: 13,
  SW_MUTE_DEVICE: 14,
  SW_PEN_INSERTED: 15,
  SW_MACHINE_COVER: 16,
} as const satisfies CodeTable;

/** Codes of EV_LED. */
export const LED = {
  LED_NUML: 0,
  LED_CAPSL: 1,
  LED_SCROLLL: 2,
  LED_COMPOSE: 3,
  LED_KANA: 4,
  LED_SLEEP: 5,
  LED_SUSPEND: 6,
  LED_MUTE: 7,
  LED_MISC: 8,
  LED_MAIL: 9,
  LED_CHARGING: 10,
} as const satisfies CodeTable;

/** Codes of EV_REP. */
export const REP = {
  REP_DELAY: 0,
  REP_PERIOD: 1,
} as const satisfies CodeTable;

/** Codes of EV_SND. */
export const SND = {
  SND_CLICK: 0,
  SND_BELL: 1,
  SND_TONE: 2,
} as const satisfies CodeTable;

/** How a device is attached, as a program that asks for its ids sees it. */
export const BUS_VIRTUAL = 0x06;

/** The codes of each event type. */
const tables: ReadonlyMap<number, CodeTable> = new Map<number, CodeTable>([
  [EV.EV_SYN, SYN],
  [EV.EV_KEY, KEY],
  [EV.EV_REL, REL],
  [EV.EV_ABS, ABS],
  [EV.EV_MSC, MSC],
  [EV.EV_SW, SW],
  [EV.EV_LED, LED],
  [EV.EV_SND, SND],
  [EV.EV_REP, REP],
]);

function namesOf(table: CodeTable): ReadonlyMap<number, string> {
  return new Map(Object.entries(table).map(([name, number]) => [number, name]));
}

const typeNames = namesOf(EV);
const codeNames = new Map([...tables].map(([type, table]) => [type, namesOf(table)]));

/** The name of an event type, or its number as text. */
export function typeName(type: number): string {
  return typeNames.get(type) ?? `${type}`;
}

/** The name of a code of an event type, or its number as text. */
export function codeName(type: number, code: number): string {
  return codeNames.get(type)?.get(code) ?? `${code}`;
}

/** An event type and a code for people: `EV_KEY KEY_A`. */
export function eventName(type: number, code: number): string {
  return `${typeName(type)} ${codeName(type, code)}`;
}

/** The event type of a name. */
export function typeNumber(name: string): number | undefined {
  return lookUp(EV, name);
}

/** The code of a name of an event type. */
export function codeNumber(type: number, name: string): number | undefined {
  const table = tables.get(type);
  return table === undefined ? undefined : lookUp(table, name);
}

function lookUp(table: CodeTable, name: string): number | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}
