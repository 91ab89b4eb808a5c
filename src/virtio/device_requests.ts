import type { Fd } from "../linux/mod.ts";
import type { CryptoSession, CryptoSessionReply, Empty, U64 } from "../vhost_user/mod.ts";

export type {
  AsymmetricCryptoSession,
  CryptoSession,
  CryptoSessionReply,
  Empty,
  SymmetricCryptoSession,
  U64,
} from "../vhost_user/mod.ts";

/**
 * Requests of vhost-user that belong to one device type, by their names in the protocol. A device
 * that handles one offers the protocol feature that goes with it; others are refused, and so is a
 * request whose handler throws or takes longer than a stop may. No other request is carried out
 * meanwhile.
 *
 * Source: QEMU, docs/interop/vhost-user.rst, "Front-end message types".
 */
export interface DeviceRequests {
  /** Network, NET_MTU: `value` is the MTU that the host recommends, in bytes. */
  NET_SET_MTU?(message: U64): void | Promise<void>;
  /**
   * Network, RARP: announce the guest at its new place after a migration. Bytes 0 to 5 of `value`
   * are its MAC address, the first byte lowest.
   */
  SEND_RARP?(message: U64): void | Promise<void>;
  /**
   * GPU: a socket of the vhost-user-gpu protocol. It is closed after the request unless the handler
   * takes it with {@linkcode Fd.release}.
   */
  GPU_SET_SOCKET?(message: Empty, fds: readonly Fd[]): void | Promise<void>;
  /**
   * Crypto, CRYPTO_SESSION: make a session (virtio 1.3, 5.9.7.2). The reply has its number, or a
   * negative one for failure.
   */
  CREATE_CRYPTO_SESSION?(
    session: CryptoSession,
  ): CryptoSessionReply | Promise<CryptoSessionReply>;
  /** Crypto, CRYPTO_SESSION: end the session whose number is `value`. */
  CLOSE_CRYPTO_SESSION?(message: U64): void | Promise<void>;
}

/** Names of {@linkcode DeviceRequests}; the compiler keeps the list complete. */
export const DEVICE_REQUESTS: Readonly<Record<keyof DeviceRequests, true>> = {
  NET_SET_MTU: true,
  SEND_RARP: true,
  GPU_SET_SOCKET: true,
  CREATE_CRYPTO_SESSION: true,
  CLOSE_CRYPTO_SESSION: true,
};
