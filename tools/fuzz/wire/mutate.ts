/** What can be wrong with a sequence of messages. */
import type { Random } from "../../lib/random.ts";
import type { Tally } from "../frame.ts";
import { descriptorKinds } from "./descriptors.ts";
import { edge, randomMessage } from "./messages.ts";
import type { Message } from "./recording.ts";

/** More descriptors than a message of the protocol has, and than Linux passes in one. */
const MANY_DESCRIPTORS = [9, 64, 253];

type Mutation = (messages: Message[], at: number, random: Random) => void;

/** Changes one message of a sequence, or the sequence. */
const mutations: Record<string, Mutation> = {
  "a byte changed"(messages, at, random) {
    change(messages, at, (bytes) => bytes[random.below(bytes.length)] = random.below(256));
  },
  "a word changed"(messages, at, random) {
    change(messages, at, (bytes) => {
      const word = random.below(bytes.length >> 2) * 4;
      new DataView(bytes.buffer).setUint32(word, edge(random), true);
    });
  },
  "flags or version changed"(messages, at, random) {
    change(messages, at, (bytes) => bytes[4] = random.below(random.pick([16, 256])));
  },
  "size changed"(messages, at, random) {
    change(messages, at, (bytes) => {
      const size = random.pick([0, 1, 7, 8, 9, 4095, 4096, 4097, 0xffff_ffff, random.below(64)]);
      new DataView(bytes.buffer).setUint32(8, size, true);
    });
  },
  "size right, payload other"(messages, at, random) {
    const { bytes, fds } = messages[at];
    const size = random.pick([0, 1, 4, 7, 8, 12, 16, 24, 40, 300, 4096]);
    const other = new Uint8Array(12 + size);
    other.set(bytes.subarray(0, other.length));
    new DataView(other.buffer).setUint32(8, size, true);
    messages[at] = { bytes: other, fds };
  },
  "dropped": (messages, at) => void messages.splice(at, 1),
  "doubled": (messages, at) => void messages.splice(at, 0, messages[at]),
  "swapped"(messages, at, random) {
    const other = random.below(messages.length);
    [messages[at], messages[other]] = [messages[other], messages[at]];
  },
  "inserted"(messages, at, random) {
    messages.splice(
      at,
      0,
      ...Array.from({ length: random.between(1, 8) }, () => randomMessage(random)),
    );
  },
  "cut short"(messages, at, random) {
    const { bytes, fds } = messages[at];
    messages[at] = { bytes: bytes.slice(0, random.below(bytes.length)), fds };
  },
  "no descriptors"(messages, at) {
    messages[at] = { ...messages[at], fds: [] };
  },
  "other descriptors"(messages, at, random) {
    const { bytes, fds } = messages[at];
    messages[at] = { bytes, fds: fds.map(() => ({ kind: random.pick(descriptorKinds) })) };
  },
  "too many descriptors"(messages, at, random) {
    const count = random.chance(3, 4) ? random.between(1, 9) : random.pick(MANY_DESCRIPTORS);
    const more = Array.from({ length: count }, () => ({ kind: random.pick(descriptorKinds) }));
    messages[at] = { bytes: messages[at].bytes, fds: [...messages[at].fds, ...more].slice(0, 253) };
  },
  "the rest never comes"(messages, at) {
    messages.splice(at + 1);
  },
};

const NAMES = Object.keys(mutations);

function change(messages: Message[], at: number, edit: (bytes: Uint8Array) => void): void {
  const bytes = messages[at].bytes.slice();
  if (bytes.length < 12) return;
  edit(bytes);
  messages[at] = { bytes, fds: messages[at].fds };
}

/** Makes a few things of a sequence wrong; the sequence given stays as it is. */
export function mutate(messages: readonly Message[], random: Random, tally: Tally): Message[] {
  const wrong = [...messages];
  for (let times = random.between(1, 6); times > 0 && wrong.length > 0; times--) {
    // The end is as likely as all of the rest: only what works so far gets there.
    const last = random.chance(1, 2);
    const at = last ? Math.max(0, wrong.length - 1 - random.below(4)) : random.below(wrong.length);
    const name = random.pick(NAMES);
    mutations[name](wrong, at, random);
    tally.add(`mutation: ${name}`);
  }
  return wrong;
}
