// Whether a folder can be a cache.
import { existsSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { errnoOf, FiletrackerError } from '../../core/errors.ts';
import { storeMarks } from '../../fs/folder-marks.ts';
import { formatSize } from '../../core/quantities.ts';

/**
 * Requires that a folder without a cache is not the store of a server. `partial`: the path of the cache's mark in it.
 * @throws FiletrackerError `invalid-argument`.
 */
export function requireNoStore(folder: string, partial: string): void {
  if (existsSync(partial) || !storeMarks.some((mark) => existsSync(join(folder, mark)))) return;
  const state = 'it is the store of a server; name another by --cache-dir or FILETRACKER_DIR';
  throw new FiletrackerError('invalid-argument', `Cannot use the folder "${folder}" as a cache: ${state}`);
}

/**
 * Checks the folder of a cache before any transfer.
 * @param warn receives a warning if the cache can never keep anything.
 * @throws FiletrackerError `invalid-argument` if there is a file in its place.
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

/** The folder, or the nearest existing one above it; `undefined` if unknown. */
function existingFolder(folder: string): string | undefined {
  for (let path = folder; ; path = dirname(path)) {
    try {
      if (statSync(path).isDirectory()) return path;
    } catch (error) {
      // The first use of the cache reports other problems; the server serves without it.
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
