import { cannot, type FiletrackerError } from './errors.ts';

/** The release of this software. A test compares it with package.json, which the bundled programs lack. */
export const release = '3.0.0';

/**
 * The error for a file that a newer release wrote. Such a file is not damaged: nothing may repair or overwrite it.
 * @param what the file, as a path below the store's folder.
 * @param known the formats that this release reads.
 */
export function newerFormat(what: string, found: unknown, known: readonly number[]): FiletrackerError {
  const format = typeof found === 'number' ? `${found}` : JSON.stringify(found).slice(0, 32);
  const state = `its format is ${format}, but this release supports ${known.join(' and ')}`;
  const advice = 'use the release of filetracker that wrote it, or a newer one';
  return cannot('corrupt-store', `read "${what}"`, `${state}; ${advice}`);
}

/**
 * Checks the number `format` of a JSON file of the store. A file without one is not newer: its reader decides what it is.
 * @throws FiletrackerError `corrupt-store`.
 */
export function checkStoredFormat(what: string, content: unknown, known: readonly number[]): void {
  if (typeof content !== 'object' || content === null || !('format' in content)) return;
  const { format } = content;
  if (typeof format === 'number' && !known.includes(format)) throw newerFormat(what, format, known);
}
