/**
 * The server's events. The page loads this module first, so that the state of the devices comes
 * while other modules do.
 *
 * @module
 */

/// <reference lib="dom" />

/** What gets the events. */
export interface EventListener {
  /** The connection came or went. */
  onConnection(isConnected: boolean): void;
  /** A value of JSON came. */
  onValue(json: string): void;
}

/** Time until the next attempt where the server had no room for another browser. */
const RETRY_MS = 1000;

const early: string[] = [];
let listener: EventListener = { onConnection() {}, onValue: (json) => void early.push(json) };
let current = connected();

function connected(): EventSource {
  const source = new EventSource("events");
  source.onopen = () => listener.onConnection(true);
  source.onmessage = ({ data }) => listener.onValue(data);
  source.onerror = () => {
    listener.onConnection(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => current = connected(), RETRY_MS);
  };
  return source;
}

/** Hands the events to the listener, at once those that came already. */
export function listen(to: EventListener): void {
  listener = to;
  if (current.readyState === EventSource.OPEN) to.onConnection(true);
  for (const json of early.splice(0)) to.onValue(json);
}
