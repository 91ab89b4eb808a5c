/**
 * Checks the names in a device: a misspelt handler would serve nothing without a word.
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
import { DEVICE_REQUESTS } from "./device_requests.ts";
import { expectNames } from "./names.ts";

/** The members of a definition; the compiler keeps the list complete. */
const DEFINITION_MEMBERS: Readonly<Record<keyof DeviceDefinition, true>> = {
  name: true,
  deviceId: true,
  about: true,
  module: true,
  panel: true,
  queues: true,
  features: true,
  config: true,
  options: true,
  threads: true,
  instances: true,
  operand: true,
  checkOptions: true,
  open: true,
  handlers: true,
};

/** The members of an opened device; the compiler keeps the list complete. */
const OPEN_MEMBERS: Readonly<
  Record<Extract<keyof OpenDevice<Queues, Features, ConfigLayout, unknown>, string>, true>
> = {
  offer: true,
  honour: true,
  queues: true,
  threads: true,
  config: true,
  shared: true,
  onFeatures: true,
  onConfigWrite: true,
  onConfigWritten: true,
  onConfigRead: true,
  onReset: true,
  onMessage: true,
  onReload: true,
  requests: true,
  queries: true,
  commands: true,
  report: true,
};

/** Members of a data half; the compiler keeps the list complete. */
const DATA_MEMBERS: Readonly<Record<keyof DataHalf, true>> = {
  queues: true,
  onBatch: true,
  kindOf: true,
  onStart: true,
  onEnable: true,
  onStop: true,
  onCancel: true,
  onReset: true,
  save: true,
  load: true,
  report: true,
  onMessage: true,
  close: true,
};

/**
 * Checks the members of a definition.
 *
 * @throws {Error} With the name that was probably meant.
 */
export function checkDefinition(definition: AnyDevice): void {
  const { name } = definition;
  expectNames(`Device ${name}`, Object.keys(definition), Object.keys(DEFINITION_MEMBERS));
}

/** The members of an object literal; none for an instance of a class, which may have others. */
function literalNames(value: object): string[] {
  return Object.getPrototypeOf(value) === Object.prototype ? Object.keys(value) : [];
}

/**
 * Checks the names in an opened device against the definition.
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
  const { requests = {} } = control;
  expectNames(`requests of ${name}`, literalNames(requests), Object.keys(DEVICE_REQUESTS));
  expectNames(`offer of ${name}`, Object.keys(control.offer ?? {}), Object.keys(features));
  expectNames(`honour of ${name}`, Object.keys(control.honour ?? {}), Object.keys(features));
  expectNames(`families of queues of ${name}`, Object.keys(control.queues ?? {}), families);
}

/**
 * Checks that each queue has a handler, and that there are no other handlers or hooks.
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
