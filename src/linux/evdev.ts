/**
 * Input devices of Linux, `/dev/input/event*`: their requests, and reading and
 * writing events.
 *
 * @module
 */

import { check, Errno, LinuxError, retry } from "./errors.ts";
import { errno, libc } from "./libc.ts";

// asm-generic/ioctl.h: direction in bits 31 and 30, size from 16, type from 8, number
const IOC_WRITE = 1;
const IOC_READ = 2;
const EVDEV_TYPE = 0x45; // "E"

function request(direction: number, number: number, bytes: number): bigint {
  return BigInt(direction) << 30n | BigInt(bytes << 16 | EVDEV_TYPE << 8 | number);
}

/** The requests of linux/input.h that pass a device through; a size is the buffer's, in bytes. */
export const evdevRequests = {
  /** EVIOCGID: bus type, vendor, product, version; u16 each. */
  id: request(IOC_READ, 0x02, 8),
  /** EVIOCGNAME: a text ended by zero. */
  name: (bytes: number): bigint => request(IOC_READ, 0x06, bytes),
  /** EVIOCGUNIQ: a text ended by zero; ENOENT when there is none. */
  uniq: (bytes: number): bigint => request(IOC_READ, 0x08, bytes),
  /** EVIOCGPROP: a bit for each property. */
  properties: (bytes: number): bigint => request(IOC_READ, 0x09, bytes),
  /** EVIOCGKEY: a bit for each key that is down. */
  keysDown: (bytes: number): bigint => request(IOC_READ, 0x18, bytes),
  /** EVIOCGBIT: a bit for each code of an event type; for type 0, for each type. */
  codes: (type: number, bytes: number): bigint => request(IOC_READ, 0x20 + type, bytes),
  /** EVIOCGABS: value, minimum, maximum, fuzz, flat, resolution; s32 each. */
  axis: (axis: number): bigint => request(IOC_READ, 0x40 + axis, 24),
  /** EVIOCGRAB: with a pointer, events go to nobody else; without one, to all again. */
  grab: request(IOC_WRITE, 0x90, 4),
} as const;

/**
 * Asks an input device for something.
 *
 * @param into The answer's memory, of the request's size
 * @returns How many bytes were answered; 0 where the answer fills the memory always
 * @throws {LinuxError} ENOTTY when it is no input device
 */
export function evdevQuery(fd: number, request: bigint, into: Uint8Array<ArrayBuffer>): number {
  return retry("ioctl", () => libc.ioctl(fd, request, into));
}

/**
 * Takes an input device for this descriptor alone, until it is closed.
 *
 * @throws {LinuxError} EBUSY when somebody else has it
 */
export function evdevGrab(fd: number): void {
  // Linux only looks whether there is a pointer
  check(libc.ioctl(fd, evdevRequests.grab, new Uint8Array(8)), "ioctl", "EVIOCGRAB");
}

/** struct input_event of 64-bit Linux: a time of 16 bytes, u16 type, u16 code, s32 value. */
export const INPUT_EVENT_BYTES = 24;

/**
 * Reads what is there now, without waiting, from a non-blocking descriptor.
 *
 * @returns How many bytes; 0 at the end, -1 when there is nothing yet
 * @throws {LinuxError} ENODEV when the device was unplugged
 */
export function evdevRead(fd: number, into: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    const count = libc.read(fd, into, into.length);
    if (count >= 0) return count;
    const code = errno();
    if (code === Errno.EAGAIN) return -1;
    if (code !== Errno.EINTR) throw new LinuxError("read", code);
  }
}

/**
 * Writes whole events, which a device takes at once.
 *
 * @throws {LinuxError} When it does not
 */
export function evdevWrite(fd: number, events: Uint8Array<ArrayBuffer>): void {
  retry("write", () => libc.write(fd, events, events.length));
}
