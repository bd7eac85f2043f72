import { join } from 'node:path';
import { readSegmentHeader } from '../catalog/journal/segment-header.ts';
import { listSegments } from '../catalog/journal/segment.ts';
import { checkIndexFormat } from '../catalog/lmdb/index/state.ts';
import { errnoOf, isFiletrackerError } from '../core/errors.ts';
import { readStateFile, storeFolders } from './store-folders.ts';

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
 * Refuses a folder in which a newer release has written something that this one does not know, before anything is
 * changed: it might be ignored, "repaired" or overwritten.
 * @throws FiletrackerError `corrupt-store` with the file, its format and the known ones.
 */
export async function refuseNewerFormats(folder: string): Promise<void> {
  for (const name of stateFileNames) {
    await readStateFile(join(folder, name)).catch((error: unknown) => {
      // The part that needs the file reports that it cannot read it.
      if (!isFiletrackerError(error) || errnoOf(error.cause) !== 'EACCES') throw error;
    });
  }
  const { journal, catalog } = storeFolders(folder);
  await checkIndexFormat(catalog);
  for (const segment of await listSegments(journal)) await readSegmentHeader(journal, segment);
}
