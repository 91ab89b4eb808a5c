import { ProtocolError } from "./errors.ts";
import { decodeHeader, type Header, HEADER_BYTES } from "./header.ts";

/** A message as it came, with file descriptors of type `F`. */
export interface ReceivedMessage<F> {
  /** Its header. */
  header: Header;
  /** Its payload, `header.size` bytes. */
  payload: Uint8Array;
  /** Its file descriptors; the receiver's to close. */
  fds: F[];
  /** More descriptors came than were wanted or than there was room for. */
  fdsLost: boolean;
}

/** Where messages come from: a stream of bytes with file descriptors of type `F`. */
export interface MessageSource<F> {
  /** Waits for bytes and looks at them; 0 at the end of the stream. */
  peek(into: Uint8Array): Promise<number>;
  /** Fills `into` (less at the end of the stream) and takes at most `mostFds` descriptors. */
  receive(
    into: Uint8Array,
    mostFds: number,
  ): Promise<{ bytes: number; fds: F[]; fdsLost: boolean }>;
  /** Closes descriptors that came with half a message. */
  close(fds: F[]): void | Promise<void>;
}

/**
 * Receives a message.
 *
 * Its header is peeked at first, so that descriptors that it cannot have do not enter the process.
 * A peer that sends the header in pieces loses those that come with it.
 *
 * @param mostFds Tells how many descriptors a message with this header's `id` can have
 * @returns The message, or undefined at the end of the stream
 * @throws {ProtocolError} With scope "stream", if the header cannot be one, or the stream ends
 * within the message
 */
export async function receiveMessage<F>(
  source: MessageSource<F>,
  mostFds: (id: number) => number,
): Promise<ReceivedMessage<F> | undefined> {
  const head = new Uint8Array(HEADER_BYTES);
  const seen = await source.peek(head);
  if (seen === 0) return undefined;
  const cut = seen < HEADER_BYTES ? await source.receive(head, 0) : undefined;
  if (cut !== undefined && cut.bytes < HEADER_BYTES) {
    throw new ProtocolError("stream", `Expected ${HEADER_BYTES} header bytes, got ${cut.bytes}`);
  }
  const header = decodeHeader(head);
  const rest = new Uint8Array(header.size + (cut === undefined ? HEADER_BYTES : 0));
  const { bytes, fds, fdsLost } = await source.receive(rest, mostFds(header.id));
  if (bytes < rest.length) {
    await source.close(fds);
    const got = Math.max(0, header.size - (rest.length - bytes));
    throw new ProtocolError("stream", `Expected ${header.size} payload bytes, got ${got}`);
  }
  const payload = rest.subarray(rest.length - header.size);
  return { header, payload, fds, fdsLost: fdsLost || cut?.fdsLost === true };
}
