/**
 * Defaults. Help and completion show them, so this module needs no permissions.
 *
 * @module
 */

/**
 * Time for which a queue thread polls its rings before it sleeps, in microseconds; the same as
 * QEMU's threads.
 */
export const DEFAULT_POLL_US = 32;

/** 1 in so many requests is traced. */
export const TRACED_EVERY = 64;

/** The size at which the file of a trace ends. */
export const MAX_TRACE_BYTES = 2 ** 28;

/** The size at which a capture of vhost-user messages ends. */
export const WIRE_MAX_BYTES = 2 ** 26;
