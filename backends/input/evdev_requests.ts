/**
 * The requests of Linux's input devices, `/dev/input/event*`: `linux/input.h`.
 *
 * @module
 */

// asm-generic/ioctl.h: direction in bits 31 and 30, size from 16, type from 8, number
const IOC_WRITE = 1;
const IOC_READ = 2;
const EVDEV_TYPE = 0x45; // "E"

function request(direction: number, number: number, bytes: number): number {
  return (direction << 30 | bytes << 16 | EVDEV_TYPE << 8 | number) >>> 0;
}

/** The requests that pass a device through; a size is the buffer's, in bytes. */
export const evdevRequests = {
  /** EVIOCGID: bus type, vendor, product, version; u16 each. */
  id: request(IOC_READ, 0x02, 8),
  /** EVIOCGNAME: a text ended by zero. */
  name: (bytes: number) => request(IOC_READ, 0x06, bytes),
  /** EVIOCGUNIQ: a text ended by zero; ENOENT when there is none. */
  uniq: (bytes: number) => request(IOC_READ, 0x08, bytes),
  /** EVIOCGPROP: a bit for each property. */
  properties: (bytes: number) => request(IOC_READ, 0x09, bytes),
  /** EVIOCGKEY: a bit for each key that is down. */
  keysDown: (bytes: number) => request(IOC_READ, 0x18, bytes),
  /** EVIOCGBIT: a bit for each code of an event type; for type 0, for each type. */
  codes: (type: number, bytes: number) => request(IOC_READ, 0x20 + type, bytes),
  /** EVIOCGABS: value, minimum, maximum, fuzz, flat, resolution; s32 each. */
  axis: (axis: number) => request(IOC_READ, 0x40 + axis, 24),
  /** EVIOCGRAB: with a pointer, only this process gets events; without one, all do again. */
  grab: request(IOC_WRITE, 0x90, 4),
} as const;

/** struct input_event of 64-bit Linux: a time of 16 bytes, u16 type, u16 code, s32 value. */
export const INPUT_EVENT_BYTES = 24;
