import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { checkStoredFormat } from '../core/release.ts';
import { unlessMissing } from '../fs/folders.ts';

/** The parts of a store in a folder. */
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

/** An empty file in the folder of a store, present until the restore that fills the folder is finished. */
export const unfinishedRestoreName = 'unfinished-restore';

/** @throws FiletrackerError if the disk cannot say: an unreadable folder does not count as absent. */
export async function isFolder(path: string): Promise<boolean> {
  return (await unlessMissing(stat(path), `read "${path}"`, 'ENOTDIR'))?.isDirectory() ?? false;
}

/** The sorted names in a folder; `undefined` if there is no folder. @throws FiletrackerError of the disk. */
export async function namesIn(folder: string): Promise<string[] | undefined> {
  return (await unlessMissing(readdir(folder), `read "${folder}"`, 'ENOTDIR'))?.sort();
}

/**
 * Reads a JSON file of format 1; `undefined` if it does not exist, `null` if it is not JSON.
 * @throws FiletrackerError `corrupt-store` for a newer format.
 */
export async function readStateFile(path: string): Promise<unknown> {
  const text = await unlessMissing(readFile(path, 'utf8'), `read "${path}"`, 'ENOTDIR');
  if (text === undefined) return undefined;
  let content: unknown = null;
  try {
    content = JSON.parse(text);
  } catch {
    return null;
  }
  checkStoredFormat(basename(path), content, [1]);
  return content;
}
