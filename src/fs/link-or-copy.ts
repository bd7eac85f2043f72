import { constants, copyFile, link, rename, stat } from 'node:fs/promises';
import { errnoOf, fromSystemError } from '../core/errors.ts';
import { removeFile } from './durable-file.ts';
import { syncFile } from './sync-file.ts';

/** Errnos that say a hard link cannot be made here though a copy can. */
const linkRefusals: ReadonlySet<string> = new Set([
  'EXDEV',
  'EPERM',
  'EMLINK',
  'ENOTSUP',
  'ENOSYS',
  'EACCES',
]);

/**
 * Gives a file a second name by a hard link, or, where that cannot be, makes a durable copy by way of
 * `temporaryPath`. A target that is there with another content is replaced, atomically; one of the same size is
 * taken for the same content. The folder of the target is the caller's to sync.
 * @throws FiletrackerError of the disk; the source's ENOENT as it comes.
 */
export async function linkOrCopy(
  source: string,
  target: string,
  temporaryPath: string,
): Promise<'linked' | 'copied' | 'present'> {
  try {
    await link(source, target);
    return 'linked';
  } catch (error) {
    const errno = errnoOf(error) ?? '';
    if (errno === 'ENOENT') throw error;
    if (errno !== 'EEXIST' && !linkRefusals.has(errno)) throw fromSystemError(error, 'link a file');
    if (errno === 'EEXIST' && (await sameFile(source, target))) return 'present';
  }
  try {
    await removeFile(temporaryPath);
    const how = await linkOrCopyTo(source, temporaryPath);
    await rename(temporaryPath, target);
    return how;
  } catch (error) {
    throw fromSystemError(error, 'copy a file');
  }
}

async function sameFile(one: string, other: string): Promise<boolean> {
  const [left, right] = await Promise.all([stat(one), stat(other)]);
  return (left.ino === right.ino && left.dev === right.dev) || left.size === right.size;
}

async function linkOrCopyTo(source: string, target: string): Promise<'linked' | 'copied'> {
  try {
    await link(source, target);
    return 'linked';
  } catch (error) {
    if (!linkRefusals.has(errnoOf(error) ?? '')) throw error;
  }
  await copyFile(source, target, constants.COPYFILE_FICLONE);
  await syncFile(target);
  return 'copied';
}
