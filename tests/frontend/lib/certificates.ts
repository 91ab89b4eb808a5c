/**
 * Certificates for TLS on loopback, of an authority that nothing else trusts.
 *
 * @module
 */

import { programPath } from "../../../tools/guest/programs.ts";

/** The paths of PEM files. */
export interface Certificates {
  /** The authority's certificate. */
  ca: string;
  /** The server's certificate, and its key. */
  cert: string;
  key: string;
}

/** Makes certificates in a directory, for a server with these names. */
export async function makeCertificates(
  directory: string,
  names = "DNS:localhost,IP:127.0.0.1",
): Promise<Certificates> {
  const openssl = await programPath("openssl");
  const request = async (name: string, subject: string, ...args: string[]) => {
    const [cert, key] = [`${directory}/${name}.pem`, `${directory}/${name}.key`];
    const { success, stderr } = await new Deno.Command(openssl, {
      args: [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        ...["-days", "2", "-subj", `/CN=${subject}`, "-keyout", key, "-out", cert, ...args],
      ],
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    return { cert, key };
  };
  const authority = await request("ca", "Authority of a test");
  const own = await request(
    ...["server", "localhost", "-CA", authority.cert, "-CAkey", authority.key] as const,
    ...["-addext", `subjectAltName=${names}`],
    ...["-addext", "basicConstraints=critical,CA:FALSE"],
  );
  return { ca: authority.cert, ...own };
}
