import {
  AKCIPHER_CREATE_SESSION,
  type CryptoSession,
  type CryptoSessionReply,
} from "./payload_values.ts";
import {
  byteArray,
  checkSize,
  fixed,
  i64,
  padded,
  type PayloadCodec,
  type Refuse,
  struct,
  u32,
  u64,
  u8,
  viewOf,
} from "./wire.ts";

const CRYPTO_SESSION_BYTES = 1072;
const CRYPTO_SESSION_ID_OFFSET = 1064;

const symmetricSetup = struct({
  cipherAlgorithm: u32,
  cipherKeyBytes: u32,
  hashAlgorithm: u32,
  hashResultBytes: u32,
  authKeyBytes: u32,
  additionalBytes: u32,
  operation: u8,
  direction: u8,
  hashMode: u8,
  // 4 bytes up to the alignment of the two pointers that follow.
  chainOrder: padded(u8, { after: 4 + 2 * 8 }),
  cipherKey: byteArray(64),
  authKey: byteArray(512),
});

const asymmetricSetup = struct({
  algorithm: u32,
  keyType: u32,
  // 4 bytes up to the alignment of the pointer that follows.
  keyBytes: padded(u32, { after: 4 + 8 }),
  rsaPadding: u32,
  rsaHash: u32,
  key: byteArray(1024),
});

/** The key at the start of a field of fixed size. */
function takeKey(
  room: Uint8Array,
  bytes: number,
  refuse: Refuse,
): Uint8Array {
  if (bytes > room.length) {
    refuse(`Expected a key of at most ${room.length} bytes, got ${bytes}`);
  }
  return room.slice(0, bytes);
}

/** A key at the start of a field of fixed size. */
function placeKey(key: Uint8Array, bytes: number): Uint8Array {
  if (key.length > bytes) {
    throw new RangeError(
      `Expected a key of at most ${bytes} bytes, got ${key.length}`,
    );
  }
  const room = new Uint8Array(bytes);
  room.set(key);
  return room;
}

/** See {@linkcode CryptoSession}. */
export const cryptoSession: PayloadCodec<CryptoSession> = {
  encode: (session) => {
    const asymmetric = session.opCode === AKCIPHER_CREATE_SESSION;
    if (asymmetric !== (session.kind === "asymmetric")) {
      throw new RangeError(
        `Expected the operation of ${session.kind} crypto, got 0x${session.opCode.toString(16)}`,
      );
    }
    const bytes = new Uint8Array(CRYPTO_SESSION_BYTES);
    const view = viewOf(bytes);
    u64.set(view, 0, session.opCode);
    i64.set(view, CRYPTO_SESSION_ID_OFFSET, session.sessionId);
    if (session.kind === "symmetric") {
      symmetricSetup.set(view, 8, {
        ...session,
        cipherKeyBytes: session.cipherKey.length,
        authKeyBytes: session.authKey.length,
        cipherKey: placeKey(session.cipherKey, 64),
        authKey: placeKey(session.authKey, 512),
      });
    } else {
      asymmetricSetup.set(view, 8, {
        ...session,
        keyBytes: session.key.length,
        key: placeKey(session.key, 1024),
      });
    }
    return bytes;
  },
  decode: (bytes, refuse) => {
    checkSize(bytes, [CRYPTO_SESSION_BYTES], refuse);
    const view = viewOf(bytes);
    const opCode = u64.get(view, 0);
    const sessionId = i64.get(view, CRYPTO_SESSION_ID_OFFSET);
    if (opCode === AKCIPHER_CREATE_SESSION) {
      const { keyBytes, ...setup } = asymmetricSetup.get(view, 8);
      const key = takeKey(setup.key, keyBytes, refuse);
      return { kind: "asymmetric", opCode, ...setup, key, sessionId };
    }
    const { cipherKeyBytes, authKeyBytes, ...setup } = symmetricSetup.get(
      view,
      8,
    );
    const cipherKey = takeKey(setup.cipherKey, cipherKeyBytes, refuse);
    const authKey = takeKey(setup.authKey, authKeyBytes, refuse);
    return {
      kind: "symmetric",
      opCode,
      ...setup,
      cipherKey,
      authKey,
      sessionId,
    };
  },
};

/** See {@linkcode CryptoSessionReply}. */
export const cryptoSessionReply: PayloadCodec<CryptoSessionReply> = fixed(
  struct<CryptoSessionReply>({ sessionId: padded(i64, { before: CRYPTO_SESSION_ID_OFFSET }) }),
  [CRYPTO_SESSION_BYTES],
);
