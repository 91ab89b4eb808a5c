/**
 * What an input device is: its identity and the events that it announces.
 *
 * @module
 */

import { ABS, BUS_VIRTUAL, EV, KEY, LED, REL, REP } from "./codes.ts";

/** The most bytes of a name, a serial number or a bitmap: virtio 1.3, 5.8.4. */
export const ANSWER_BYTES_MAX = 128;

/** Identifies a device to programs: struct virtio_input_devids. */
export interface DeviceIds {
  /** How it is attached, one of Linux's `BUS_*`. */
  readonly bustype: number;
  /** The vendor. */
  readonly vendor: number;
  /** The product. */
  readonly product: number;
  /** The product's version. */
  readonly version: number;
}

/** An absolute axis: struct virtio_input_absinfo. */
export interface AxisInfo {
  /** The smallest value. */
  readonly min: number;
  /** The largest value. */
  readonly max: number;
  /** Changes below this are noise. */
  readonly fuzz: number;
  /** Values within this of the middle are the middle. */
  readonly flat: number;
  /** Units per millimetre; 0 for unknown. */
  readonly res: number;
}

/** A device as its driver finds it out. */
export interface InputModel {
  /** What it is for people: a profile, or `evdev`. */
  readonly kind: string;
  /** The name. */
  readonly name: string;
  /** The serial number; empty for none. */
  readonly serial: string;
  /** The ids. */
  readonly ids: DeviceIds;
  /** Its `INPUT_PROP_*`. */
  readonly properties: ReadonlySet<number>;
  /** The codes of each event type that it announces. */
  readonly codes: ReadonlyMap<number, ReadonlySet<number>>;
  /** Its absolute axes, by `ABS_*`. */
  readonly axes: ReadonlyMap<number, AxisInfo>;
}

/** The profiles that there are. */
export type Profile = "keyboard" | "mouse" | "tablet";

/** What may be chosen about a profile. */
export interface ProfileOptions {
  /** The name; by default a description of the device. */
  name?: string;
  /** The serial number; by default there is none. */
  serial?: string;
  /** The vendor id. */
  vendorId?: number;
  /** The product id; by default the profile's own. */
  productId?: number;
}

const keys = Object.entries(KEY).filter(([name]) => name.startsWith("KEY_")).map(([, code]) =>
  code
);
const buttons = [KEY.BTN_LEFT, KEY.BTN_RIGHT, KEY.BTN_MIDDLE, KEY.BTN_SIDE, KEY.BTN_EXTRA];
const wheels = [REL.REL_WHEEL, REL.REL_HWHEEL];
/** A position on the whole screen, in the range that QEMU's own tablet has. */
const screen: AxisInfo = { min: 0, max: 32767, fuzz: 0, flat: 0, res: 0 };

interface ProfileDefinition {
  productId: number;
  codes: readonly (readonly [type: number, codes: readonly number[]])[];
  axes?: readonly (readonly [axis: number, info: AxisInfo])[];
}

const profiles: Readonly<Record<Profile, ProfileDefinition>> = {
  keyboard: {
    productId: 1,
    codes: [
      [EV.EV_KEY, keys],
      [EV.EV_LED, [LED.LED_NUML, LED.LED_CAPSL, LED.LED_SCROLLL]],
      // The guest repeats keys that stay down.
      [EV.EV_REP, [REP.REP_DELAY, REP.REP_PERIOD]],
    ],
  },
  mouse: {
    productId: 2,
    codes: [
      [EV.EV_KEY, buttons],
      [EV.EV_REL, [REL.REL_X, REL.REL_Y, ...wheels]],
    ],
  },
  tablet: {
    productId: 3,
    codes: [
      [EV.EV_KEY, buttons],
      [EV.EV_REL, wheels],
      [EV.EV_ABS, [ABS.ABS_X, ABS.ABS_Y]],
    ],
    axes: [[ABS.ABS_X, screen], [ABS.ABS_Y, screen]],
  },
};

/**
 * A device of a profile.
 *
 * @throws {RangeError} When a text or an id does not fit.
 */
export function profileModel(profile: Profile, options: ProfileOptions = {}): InputModel {
  const { productId, codes, axes = [] } = profiles[profile];
  return {
    kind: profile,
    properties: new Set(),
    codes: new Map(codes.map(([type, codes]) => [type, new Set(codes)])),
    axes: new Map(axes),
    ...identity(
      {
        name: `vhostd ${profile}`,
        serial: "",
        ids: { bustype: BUS_VIRTUAL, vendor: 0, product: productId, version: 1 },
      },
      options,
    ),
  };
}

/**
 * The identity of a device, with overrides.
 *
 * @throws {RangeError} When a text or an id does not fit.
 */
export function identity(
  own: Pick<InputModel, "name" | "serial" | "ids">,
  options: ProfileOptions,
): Pick<InputModel, "name" | "serial" | "ids"> {
  const { name = own.name, serial = own.serial } = options;
  for (const [what, text] of [["name", name], ["serial number", serial]]) {
    const { length } = new TextEncoder().encode(text);
    if (length > ANSWER_BYTES_MAX) {
      throw new RangeError(
        `Expected a ${what} of at most ${ANSWER_BYTES_MAX} bytes of UTF-8, got ${length}`,
      );
    }
  }
  const { vendorId: vendor = own.ids.vendor, productId: product = own.ids.product } = options;
  for (const [what, id] of [["vendor", vendor], ["product", product]] as const) {
    if (!(id >= 0 && id <= 0xffff)) {
      throw new RangeError(`Expected a ${what} id of 16 bits, got ${id}`);
    }
  }
  return { name, serial, ids: { ...own.ids, vendor, product } };
}
