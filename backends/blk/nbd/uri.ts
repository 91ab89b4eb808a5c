/**
 * NBD URIs, by their specification: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md
 *
 * @module
 */

import { OptionError } from "../../../mod.ts";

/** How a server is reached, and which of its disks is meant; plain values. */
export interface NbdTarget {
  /** The URI as it was given. */
  readonly uri: string;
  /** Where the server listens, for messages. */
  readonly server: string;
  /** Its Unix socket; undefined for TCP. */
  readonly socket: string | undefined;
  readonly host: string;
  readonly port: number;
  /** The name of the export; the default one's is empty. */
  readonly exportName: string;
  /** undefined without TLS. */
  readonly tls: TlsSettings | undefined;
}

/** What TLS uses, by libnbd's names of the parameters. */
export interface TlsSettings {
  readonly username: string | undefined;
  /** A directory with ca-cert.pem, and client-cert.pem and client-key.pem where the server wants them. */
  readonly certificates: string | undefined;
  /** Keys that the server has too, in place of certificates. */
  readonly pskFile: string | undefined;
  /** Whether the server must have a certificate of an authority in ca-cert.pem. */
  readonly verifyPeer: boolean;
}

/** The port of NBD. */
const NBD_PORT = 10809;

const SCHEMES = ["nbd", "nbds", "nbd+unix", "nbds+unix"];
const TLS_PARAMETERS = ["tls-certificates", "tls-psk-file", "tls-verify-peer"];

/**
 * Reads a URI.
 *
 * @throws {OptionError} When it is none, or has what is not supported.
 */
export function parseNbdUri(uri: string): NbdTarget {
  const refuse = (what: string) => new OptionError(`${what}, got ${uri}`);
  // URLs in general have no user without a host
  const [, user, withoutUser] = uri.match(/^nbds\+unix:\/\/([^/@:]+)@(\/.*)$/i) ?? [];
  const text = user === undefined ? uri : `nbds+unix://${withoutUser}`;
  if (!URL.canParse(text)) throw refuse("Expected an NBD URI such as nbd://HOST:PORT/EXPORT");
  const url = new URL(text);
  const scheme = url.protocol.slice(0, -1);
  if (!SCHEMES.includes(scheme)) throw refuse(`Expected a URI with ${SCHEMES.join(", ")}`);
  const isUnix = scheme.endsWith("+unix"), isTls = scheme.startsWith("nbds");

  const decode = (part: string) => {
    const text = decodedOf(part);
    if (text !== undefined && !text.includes("\0")) return text;
    throw refuse(`Expected % before two hexadecimal digits, UTF-8 and no NUL`);
  };
  if (url.hash !== "") throw refuse("Expected %23 for #, which a URI cannot have in names");
  const parameters = new Map<string, string>();
  // In a URI, unlike in a form, + is no space
  for (const parameter of url.search.slice(1).split("&").filter((text) => text !== "")) {
    const [name, ...value] = parameter.split("=");
    if (parameters.has(decode(name))) throw refuse(`Expected one ${decode(name)}`);
    parameters.set(decode(name), decode(value.join("=")));
  }
  const known = [...isUnix ? ["socket"] : [], ...isTls ? TLS_PARAMETERS : []];
  for (const name of parameters.keys()) {
    if (known.includes(name)) continue;
    if (TLS_PARAMETERS.includes(name)) throw refuse(`Expected nbds: for ${name}`);
    throw refuse(
      `Expected no parameter ${name}${known.length > 0 ? `, but ${known.join(", ")}` : ""}`,
    );
  }
  if (url.password !== "") throw refuse("Expected no password: NBD has none");
  if (url.username !== "" && !isTls) throw refuse("Expected nbds: for a user's name");

  const socket = parameters.get("socket") ?? undefined;
  const host = decode(url.hostname).replace(/^\[(.*)\]$/, "$1");
  const port = url.port === "" ? NBD_PORT : Number(url.port);
  if (isUnix && !socket) throw refuse(`Expected ${scheme}:///EXPORT?socket=PATH`);
  if (isUnix && host !== "") {
    throw refuse(`Expected three slashes (${scheme}:///EXPORT?socket=PATH)`);
  }
  if (!isUnix && host === "") throw refuse(`Expected a host (${scheme}://HOST:PORT/EXPORT)`);
  const verify = parameters.get("tls-verify-peer") ?? "1";
  if (verify !== "0" && verify !== "1") throw refuse("Expected tls-verify-peer=0 or 1");
  const certificates = parameters.get("tls-certificates") ?? undefined;
  const pskFile = parameters.get("tls-psk-file") ?? undefined;
  const verifyPeer = verify === "1" && pskFile === undefined;
  if (isTls && verifyPeer && isUnix) {
    throw refuse(
      "Expected tls-psk-file=FILE, or tls-verify-peer=0 for the server that owns the socket: " +
        "libnbd verifies no certificate over a Unix socket",
    );
  }
  if (isTls && verifyPeer && certificates === undefined) {
    throw refuse(
      "Expected tls-certificates=DIR with ca-cert.pem, tls-psk-file=FILE, or tls-verify-peer=0 " +
        "for any server",
    );
  }
  return {
    uri,
    server: socket ?? (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`),
    ...{ socket, host, port },
    // As it stands: a URL's path would lose its dots
    exportName: decode(text.match(/^[^:]+:\/\/[^/?]*\/?([^?]*)/)![1]),
    tls: !isTls ? undefined : {
      username: decode(user ?? url.username) || undefined,
      ...{ certificates, pskFile, verifyPeer },
    },
  };
}

/** The text that percent-encoding stands for, if it does. */
function decodedOf(encoded: string): string | undefined {
  try {
    return decodeURIComponent(encoded);
  } catch (error) {
    if (error instanceof URIError) return undefined;
    throw error;
  }
}
