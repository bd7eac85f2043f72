import { microsecondsOf, timeInSeconds } from '../../src/fs/time-stamps.ts';

/** The time of a file as `utimes` takes it, so that the file's time stays what it is, to the microsecond. */
export function keptTime({ mtimeMs }: { readonly mtimeMs: number }): number {
  return timeInSeconds(Math.floor(mtimeMs / 1000), microsecondsOf(mtimeMs));
}
