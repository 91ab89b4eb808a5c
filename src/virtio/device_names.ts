/**
 * What the parts of a device are called, held against what there is: a queue's handler that is
 * misspelt would serve nothing, and say so to nobody.
 *
 * @module
 */

import type { ConfigLayout } from "./config/layout.ts";
import type {
  AnyDevice,
  DataHalf,
  DeviceDefinition,
  Features,
  OpenDevice,
  Queues,
} from "./device.ts";
import { expectNames } from "./names.ts";

/** What a definition may have; the compiler keeps it complete. */
const DEFINITION_MEMBERS: Readonly<Record<keyof DeviceDefinition, true>> = {
  name: true,
  deviceId: true,
  about: true,
  module: true,
  queues: true,
  features: true,
  config: true,
  options: true,
  threads: true,
  open: true,
  handlers: true,
};

/** What an opened device may have; the compiler keeps it complete. */
const OPEN_MEMBERS: Readonly<
  Record<Extract<keyof OpenDevice<Queues, Features, ConfigLayout, unknown>, string>, true>
> = {
  offer: true,
  honour: true,
  queues: true,
  config: true,
  shared: true,
  onFeatures: true,
  onConfigWrite: true,
  onConfigWritten: true,
  onConfigRead: true,
  onReset: true,
  onReload: true,
  commands: true,
  report: true,
};

/** Members of a data half; the compiler keeps the list complete. */
const DATA_MEMBERS: Readonly<Record<keyof DataHalf, true>> = {
  queues: true,
  onBatch: true,
  onStart: true,
  onStop: true,
  onReset: true,
  save: true,
  load: true,
  report: true,
  onMessage: true,
  close: true,
};

/**
 * Expects that a definition has only what a definition may have.
 *
 * @throws {Error} With the name that was probably meant.
 */
export function checkDefinition(definition: AnyDevice): void {
  const { name } = definition;
  expectNames(`Device ${name}`, Object.keys(definition), Object.keys(DEFINITION_MEMBERS));
}

/** The members of an object that somebody wrote down; an instance of a class may have others of its own. */
function literalNames(value: object): string[] {
  return Object.getPrototypeOf(value) === Object.prototype ? Object.keys(value) : [];
}

/**
 * Expects that what a device's `open` returned names what the definition has.
 *
 * @throws {Error} With the name that was probably meant.
 */
export function checkOpenDevice(
  device: AnyDevice,
  control: OpenDevice<Queues, Features, ConfigLayout, unknown>,
): void {
  const { name, queues, features = {} } = device;
  const families = Object.values(queues as Queues).flatMap(({ family }) => family ?? []);
  expectNames(`open() of ${name}`, literalNames(control), Object.keys(OPEN_MEMBERS));
  expectNames(`offer of ${name}`, Object.keys(control.offer ?? {}), Object.keys(features));
  expectNames(`honour of ${name}`, Object.keys(control.honour ?? {}), Object.keys(features));
  expectNames(`families of queues of ${name}`, Object.keys(control.queues ?? {}), families);
}

/**
 * Expects a handler for each queue, none for another, and no unknown hook.
 *
 * @throws {Error} With the name that was probably meant.
 */
export function checkHandlers(device: AnyDevice, half: DataHalf): void {
  const known = Object.keys(device.queues);
  const what = `handlers of ${device.name}`;
  expectNames(what, literalNames(half), Object.keys(DATA_MEMBERS));
  const { queues = {} } = half as Partial<DataHalf>;
  expectNames(`queues in ${what}`, literalNames(queues), known);
  for (const queue of known) {
    if (typeof queues[queue] === "function") continue;
    throw new Error(`${what}: expected a function for queue ${queue}, got none`);
  }
}
