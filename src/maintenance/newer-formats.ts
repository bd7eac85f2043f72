import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readSegmentHeader } from '../catalog/journal/segment-header.ts';
import { listSegments } from '../catalog/journal/segment.ts';
import { checkIndexFormat } from '../catalog/lmdb/index/state.ts';
import { errnoOf, fromSystemError } from '../core/errors.ts';
import { checkStoredFormat } from '../core/release.ts';
import { storeFolders } from './backup/store-folders.ts';

/** The files with a format of their own in the folder of a store or a backup, all in format 1. */
const stateFileNames = [
  'adoption.json',
  'backup.json',
  'store.json',
  'tokens.json',
  'tokens-required.json',
  'verification.json',
] as const;

/**
 * Refuses a folder in which a newer release has written something that this one does not know. It is looked at before
 * anything is changed: what is not known might be ignored, "repaired" or written over.
 * @throws FiletrackerError `corrupt-store` with the file, the format that was found and those that are known.
 */
export async function refuseNewerFormats(folder: string): Promise<void> {
  for (const name of stateFileNames) checkStoredFormat(name, await readJsonIfThere(join(folder, name)), [1]);
  const { journal, catalog } = storeFolders(folder);
  await checkIndexFormat(catalog);
  for (const segment of await listSegments(journal)) await readSegmentHeader(journal, segment);
}

async function readJsonIfThere(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    // What can't be read is told by the part that needs it.
    const errno = errnoOf(error);
    if (error instanceof SyntaxError || errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EACCES')
      return undefined;
    throw fromSystemError(error, `read "${path}"`);
  }
}
