/**
 * What holds where nobody says otherwise. Plain numbers: help and completion show them without the
 * permissions that serving takes.
 *
 * @module
 */

/**
 * How long a queue thread looks for new requests before it sleeps, in microseconds: as long as
 * QEMU's threads do.
 */
export const DEFAULT_POLL_US = 32;
