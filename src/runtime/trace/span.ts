/**
 * A span: the times of one request, as floats. Times are nanoseconds of CLOCK_MONOTONIC; 0 stands
 * for none.
 *
 * @module
 */

/** When the kick was noticed that its turn of the queue began with; none if it was found otherwise. */
export const KICK = 0;
/** When the device's handler was called with it. */
export const TAKE = 1;
/** When the handler returned, or the device completed it before. */
export const SUBMIT = 2;
/** When the device completed it. */
export const COMPLETE = 3;
/** When the driver could see its completion. */
export const PUBLISH = 4;
/** When the driver had been notified; none if the driver wanted no notification. */
export const NOTIFY = 5;
/** The index of its queue, in the lower 8 bits, and the number of its kind. */
export const QUEUE_KIND = 6;
/** The bytes of its chain. */
export const BYTES = 7;

/** The number of floats of a span. */
export const FLOATS = 8;
