import { statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { formatSize } from '../size-text.ts';

/**
 * Looks at the folder of a cache before anything is transferred.
 * @param warn is told if the cache can never keep anything.
 * @throws FiletrackerError `invalid-argument` if a file is in its place.
 */
export function checkCacheFolder(
  folder: string,
  freeMinBytes: number | undefined,
  warn: (message: string) => void,
): void {
  const existing = existingFolder(folder);
  if (freeMinBytes === undefined || existing === undefined) return;
  const { blocks, bsize } = statfsSync(existing);
  const diskBytes = blocks * bsize;
  if (freeMinBytes < diskBytes) return;
  const state = `its disk has ${formatSize(diskBytes)}, and ${formatSize(freeMinBytes)} of it must stay free`;
  warn(`The cache "${folder}" keeps nothing: ${state}; lower cacheMinFree (FILETRACKER_CACHE_MIN_FREE)`);
}

/** The folder, or the nearest above it that is there; undefined if that can't be found out. */
function existingFolder(folder: string): string | undefined {
  for (let path = folder; ; path = dirname(path)) {
    try {
      if (statSync(path).isDirectory()) return path;
    } catch (error) {
      // What else is wrong with it is reported by its first use, without which the server serves all the same.
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') return undefined;
      if (path === dirname(path)) return undefined;
      continue;
    }
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot use the cache "${folder}": "${path}" is a file and not a folder; name another by --cache-dir or FILETRACKER_DIR`,
    );
  }
}
