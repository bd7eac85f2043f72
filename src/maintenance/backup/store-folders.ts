import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../../core/errors.ts';

/** Where the parts of an embedded store lie. */
export interface StoreFolders {
  readonly root: string;
  readonly journal: string;
  readonly catalog: string;
  readonly blobs: string;
  readonly uploads: string;
  readonly quarantine: string;
}

export function storeFolders(root: string): StoreFolders {
  return {
    root,
    journal: join(root, 'journal'),
    catalog: join(root, 'catalog'),
    blobs: join(root, 'blobs'),
    uploads: join(root, 'uploads'),
    quarantine: join(root, 'quarantine'),
  };
}

/** Folder inside an adopted 2.x folder that holds our store; see docs/adr/0003-an-old-folder-is-adopted-in-place.md. */
export const adoptedStoreName = 'store-3';

/** A file without bytes, in the folder of a store as long as the restore that makes it is not finished. */
export const unfinishedRestoreName = 'unfinished-restore';

/** @throws FiletrackerError where that cannot be told: what cannot be looked at is not taken for absent. */
export async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false;
    throw fromSystemError(error, `look at "${path}"`);
  }
}
