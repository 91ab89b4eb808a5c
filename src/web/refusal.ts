/**
 * Decides which requests are refused before anything else looks at them.
 *
 * The page is for one person at one machine, but any page of any site can make that person's
 * browser send requests here. So a request needs the token in its path, which other sites do not
 * know; the Host that was listened to, which a rebound DNS name does not have; and an Origin, if
 * any, that is this page's.
 *
 * @module
 */

import { timingSafeEqual } from "node:crypto";

/** The largest body, in bytes. */
export const MAX_BODY_BYTES = 65_536;

/** The longest URL, in characters. */
const MAX_URL_CHARACTERS = 1024;

/** What requests are held against. */
export interface Expected {
  /** The first part of each path. */
  token: string;
  /** The address that is listened to. */
  hostname: string;
  port: number;
  /** Whether commands are taken. */
  control: boolean;
}

/** Why a request is refused. */
export interface Refusal {
  status: number;
  why: string;
}

/** Returns why a request is refused; undefined if it is not. */
export function refusalOf(request: Request, expected: Expected): Refusal | undefined {
  const { headers, method, url } = request;
  const refuse = (status: number, why: string): Refusal => ({ status, why });
  const host = headers.get("host") ?? "";
  if (!isOurHost(host, expected)) {
    return refuse(403, "Expected the Host that vhostd web listens to; use the URL that it printed");
  }
  const origin = headers.get("origin");
  if (origin !== null && origin !== `http://${host}`) {
    return refuse(403, "Expected a request of this page, got one of another site");
  }
  const site = headers.get("sec-fetch-site");
  if (site !== null && site !== "same-origin" && site !== "none") {
    return refuse(403, "Expected a request of this page, got one of another site");
  }
  if (url.length > MAX_URL_CHARACTERS) return refuse(414, "Expected a shorter URL");
  const [, token] = new URL(url).pathname.split("/");
  if (!isSame(token, expected.token)) {
    return refuse(403, "Expected the token in the path; use the URL that vhostd web printed");
  }
  if (method === "GET" || method === "HEAD") return undefined;
  if (method !== "POST") return refuse(405, `Expected GET or POST, got ${method}`);
  if (!expected.control) {
    return refuse(403, "The page is read-only; start vhostd web with --control");
  }
  if (headers.get("content-type") !== "application/json") {
    return refuse(415, "Expected content-type application/json");
  }
  // A browser always sends one with a POST
  if (origin === null) return refuse(403, "Expected an Origin");
  const length = headers.get("content-length");
  if (length === null || !/^\d{1,10}$/.test(length)) {
    return refuse(411, "Expected a content-length");
  }
  if (Number(length) > MAX_BODY_BYTES) {
    return refuse(413, `Expected a body of at most ${MAX_BODY_BYTES} bytes`);
  }
}

/**
 * Whether a Host is the address that is listened to. Names other than localhost are not: anyone's
 * name can lead here.
 */
function isOurHost(host: string, { hostname, port }: Expected): boolean {
  const [, name, given = "80"] = /^(\[[\da-f:.]+\]|[^:]+)(?::(\d+))?$/i.exec(host) ?? [];
  if (name === undefined || Number(given) !== port) return false;
  const address = name.replace(/^\[|\]$/g, "");
  if (address === hostname) return true;
  if (isLoopback(hostname)) return address === "localhost";
  const isAny = hostname === "0.0.0.0" || hostname === "::";
  return isAny && (address === "localhost" || /^[\d.]+$/.test(address) || address.includes(":"));
}

/** Whether an address is only this machine's. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || /^127(\.\d+){3}$/.test(hostname);
}

function isSame(given: string, expected: string): boolean {
  const [a, b] = [given, expected].map((text) => new TextEncoder().encode(text));
  return a.length === b.length && timingSafeEqual(a, b);
}
