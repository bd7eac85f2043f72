import { access, constants, rmdir } from 'node:fs/promises';
import { errnoOf, FiletrackerError } from '../core/errors.ts';
import { makeFolders, privateFolderMode } from '../fs/folders.ts';

const folderStates: Readonly<Record<string, string>> = {
  EACCES: 'this user may not write there',
  EPERM: 'this user may not write there',
  EROFS: 'its file system is read-only',
  ENOTDIR: 'it, or what it lies in, is not a folder',
  EEXIST: 'it is not a folder',
  ENOENT: 'its file system takes no folders',
  ENOSPC: 'its disk is full',
};

/**
 * Makes the folder of a store where it is missing, and sees to it that it can be used. Gives the folders that it made,
 * the topmost first.
 * @throws FiletrackerError `invalid-argument`.
 */
export async function prepareFolder(folder: string): Promise<readonly string[]> {
  try {
    const made = await makeFolders(folder, privateFolderMode);
    await access(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return made;
  } catch (error) {
    const errno = errnoOf(error) ?? '';
    throw new FiletrackerError(
      'invalid-argument',
      `Cannot use the folder "${folder}": ${folderStates[errno] ?? errno}; choose another with -d`,
      { cause: error },
    );
  }
}

/** Removes folders that were made for a server that then could not start, those in which something is now excepted. */
export async function removeUnused(made: readonly string[]): Promise<void> {
  for (const folder of made.toReversed()) await rmdir(folder).catch(() => undefined);
}
