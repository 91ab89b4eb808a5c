/**
 * What a real front-end said: its messages as bytes, with the kinds of the descriptors that came
 * along.
 */
import type { Descriptor, DescriptorKind } from "./descriptors.ts";

export interface RecordedMessage {
  /** Header and payload. */
  hex: string;
  /** What came along: `memory:BYTES`, or a kind of {@linkcode DescriptorKind}. */
  fds?: string[];
}

export interface Message {
  bytes: Uint8Array;
  fds: Descriptor[];
}

export function readRecording(messages: readonly RecordedMessage[]): Message[] {
  return messages.map(({ hex, fds = [] }) => ({
    bytes: Uint8Array.fromHex(hex),
    fds: fds.map((fd) =>
      fd.startsWith("memory:")
        ? { memoryBytes: Number(fd.slice("memory:".length)) }
        : { kind: fd as DescriptorKind }
    ),
  }));
}

/** Writes a message as it stands in a file. */
export function recordMessage(bytes: Uint8Array, fds: readonly string[]): RecordedMessage {
  const hex = bytes.toHex();
  return fds.length === 0 ? { hex } : { hex, fds: [...fds] };
}

const DIRECTORY = new URL("../../../tests/frontend/recordings/", import.meta.url);

/** Every recording that there is, in the order of their names. */
export function readRecordings(): Message[][] {
  const names = [...Deno.readDirSync(DIRECTORY)].map(({ name }) => name).sort();
  return names.map((name) =>
    readRecording(JSON.parse(Deno.readTextFileSync(new URL(name, DIRECTORY))))
  );
}
