import { randomBytes } from 'node:crypto';
import { rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import { ofFileSystem } from '../../fs/folder-marks.ts';

/** The parts of a folder of blobs. */
export interface BlobFolders {
  readonly blobs: string;
  /** Where uploads are received; on the file system of the blobs, so that a rename makes one a blob. */
  readonly uploads: string;
  /** Where uploads may have been left: there, or where they were received before a part was moved to another disk. */
  readonly uploadsEver: readonly string[];
}

/**
 * Names below `blobs/` that are no folders of blobs: the uploads of a store whose blobs are on a file system of their
 * own, and what that file system keeps for itself.
 */
export const reservedNames: ReadonlySet<string> = new Set(['uploads', ...ofFileSystem]);

/** The folders of a store that is only read. */
export function blobFoldersToRead(folder: string): BlobFolders {
  const [blobs, uploads] = [join(folder, 'blobs'), join(folder, 'uploads')];
  return { blobs, uploads, uploadsEver: [uploads, join(blobs, 'uploads')] };
}

/**
 * Finds out where uploads are received: in `uploads/`, or in `blobs/uploads/` if one of both folders is a link to another
 * file system, or a mount. Both are there already. Works on a full or read-only disk.
 */
export async function findBlobFolders(folder: string): Promise<BlobFolders> {
  const folders = blobFoldersToRead(folder);
  if (await canRename(folders.uploads, folders.blobs)) return folders;
  return { ...folders, uploads: join(folders.blobs, 'uploads') };
}

/** Folders of one device can be two mounts (a bind mount), and one mount can have several devices (btrfs). */
async function canRename(one: string, other: string): Promise<boolean> {
  try {
    const [left, right] = await Promise.all([stat(one), stat(other)]);
    if (left.dev !== right.dev) return false;
    const missing = randomBytes(12).toString('hex');
    await rename(join(one, missing), join(other, missing));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'EXDEV') return false;
    // There is no such file. A read-only file system says so first, and takes no uploads.
    if (errno !== 'ENOENT' && errno !== 'EROFS') throw fromSystemError(error, 'look at the folders of blobs');
  }
  return true;
}
