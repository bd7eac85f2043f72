import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFileMarks, cacheMarks } from '../core/folder-marks.ts';

/** Whether a folder is the cache of a client of ours, in which something was stored. */
export function isCacheFolder(folder: string): boolean {
  return (
    cacheMarks.every((mark) => existsSync(join(folder, mark))) &&
    cacheFileMarks.some((mark) => existsSync(join(folder, mark)))
  );
}
