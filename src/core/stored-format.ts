import { FiletrackerError } from './errors.ts';

/**
 * Refuses what a newer release has written. It is not damaged: nothing may repair it, or write over it.
 * @param what it is, as a path below the folder of the store.
 * @param known the formats that this release reads.
 */
export function newerFormat(what: string, found: unknown, known: readonly number[]): FiletrackerError {
  const format = typeof found === 'number' ? `${found}` : JSON.stringify(found).slice(0, 32);
  return new FiletrackerError(
    'corrupt-store',
    `Cannot read "${what}": it has format ${format}, and this release knows ${known.join(' and ')}; ` +
      'use the release of filetracker that wrote it, or a newer one',
  );
}

/**
 * Checks the number `format` of a JSON file of ours. A file that has none is not newer: whoever reads it decides what it
 * is. @throws FiletrackerError `corrupt-store`.
 */
export function checkStoredFormat(what: string, content: unknown, known: readonly number[]): void {
  if (typeof content !== 'object' || content === null || !('format' in content)) return;
  const { format } = content;
  if (typeof format === 'number' && !known.includes(format)) throw newerFormat(what, format, known);
}
