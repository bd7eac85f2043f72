import { randomBytes } from 'node:crypto';
import { rename, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, fromSystemError } from '../../core/errors.ts';
import { ofFileSystem } from '../../fs/folder-marks.ts';

/** The parts of a folder of blobs. */
export interface BlobFolders {
  readonly blobs: string;
  /** Folder of uploads in progress, on the file system of the blobs, so that a rename makes an upload a blob. */
  readonly uploads: string;
  /** Folders in which uploads may have been left: this one, and the one used before a part was moved to another disk. */
  readonly uploadsEver: readonly string[];
}

/** Names below `blobs/` that are not folders of blobs, if the blobs are on a file system of their own. */
export const reservedNames: ReadonlySet<string> = new Set(['uploads', ...ofFileSystem]);

export function blobFoldersToRead(folder: string): BlobFolders {
  const [blobs, uploads] = [join(folder, 'blobs'), join(folder, 'uploads')];
  return { blobs, uploads, uploadsEver: [uploads, join(blobs, 'uploads')] };
}

/**
 * Chooses the folder for uploads: `uploads/`, or `blobs/uploads/` if one of both is a link to another file system, or a
 * mount. Both folders must exist. Works on a full or read-only disk.
 */
export async function findBlobFolders(folder: string): Promise<BlobFolders> {
  const folders = blobFoldersToRead(folder);
  if (await canRename(folders.uploads, folders.blobs)) return folders;
  return { ...folders, uploads: join(folders.blobs, 'uploads') };
}

/** Tried, not computed: one device can be two mounts (a bind mount), and one mount can have several devices (btrfs). */
async function canRename(one: string, other: string): Promise<boolean> {
  try {
    const [left, right] = await Promise.all([stat(one), stat(other)]);
    if (left.dev !== right.dev) return false;
    const missing = randomBytes(12).toString('hex');
    await rename(join(one, missing), join(other, missing));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'EXDEV') return false;
    // There is no such file. A read-only file system, which takes no uploads, reports that first.
    if (errno !== 'ENOENT' && errno !== 'EROFS') throw fromSystemError(error, 'look at the folders of blobs');
  }
  return true;
}
