/** Sessions of real front-ends, which `--wire` captured. */
import { descriptorsOf, readRecording } from "../../../src/frontend/recording.ts";
import type { Descriptor } from "./descriptors.ts";

/** A message, and the descriptors to send with it. */
export interface Message {
  bytes: Uint8Array;
  fds: Descriptor[];
}

const DIRECTORY = new URL("../../../tests/frontend/recordings/", import.meta.url);

/** Every recorded session, in the order of the files' names. */
export function readRecordings(): Message[][] {
  const names = [...Deno.readDirSync(DIRECTORY)].map(({ name }) => name).sort();
  return names.flatMap((name) => readRecording(Deno.readFileSync(new URL(name, DIRECTORY))))
    .map(({ requests }) =>
      requests.map((request) => ({ bytes: request.bytes, fds: descriptorsOf(request) }))
    );
}
