// File times in microseconds, the finest precision that `utimes` sets alike in every version of Node: up to version
// 22 it truncates finer times, from version 24 on it sets nanoseconds, as exactly as a double is.

const microsecondsPerSecond = 1_000_000;

/**
 * A double with a current time in seconds, or in milliseconds, is off by up to an eighth of a microsecond, and once
 * more after a multiplication. Times are set this much later, so that none is read, or truncated, as the previous
 * microsecond.
 */
const slackMicroseconds = 0.25;

/** The microseconds of a time within its second, 0 to 999,999; finer parts are cut off. */
export function microsecondsOf(timeMs: number): number {
  const microseconds = timeMs * 1000 - Math.floor(timeMs / 1000) * microsecondsPerSecond;
  return Math.min(Math.floor(microseconds + slackMicroseconds), microsecondsPerSecond - 1);
}

/** A time in seconds, for `utimes`, that is read as these microseconds of that second. Not before 1970. */
export function timeInSeconds(second: number, microseconds: number): number {
  return second + (microseconds + slackMicroseconds) / microsecondsPerSecond;
}
