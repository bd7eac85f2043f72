// Times of files at the precision of a microsecond, the finest that `utimes` sets alike in every version of Node:
// up to version 22 it cuts off what is finer, since version 24 it sets nanoseconds, as exactly as a double is.

const microsecondsPerSecond = 1_000_000;

/**
 * A double that counts a time of our day in seconds, or in milliseconds, errs by up to an eighth of a microsecond, and once
 * more when it is multiplied. Times are set so much later than meant that none is ever read, or cut off, as the microsecond before.
 */
const slackMicroseconds = 0.25;

/** The microseconds of a time within its second, 0 to 999,999; whatever is finer is cut off. */
export function microsecondsOf(timeMs: number): number {
  const microseconds = timeMs * 1000 - Math.floor(timeMs / 1000) * microsecondsPerSecond;
  return Math.min(Math.floor(microseconds + slackMicroseconds), microsecondsPerSecond - 1);
}

/** A time in seconds, as `utimes` takes it, that is read as these microseconds of that second. Not before 1970. */
export function timeInSeconds(second: number, microseconds: number): number {
  return second + (microseconds + slackMicroseconds) / microsecondsPerSecond;
}
