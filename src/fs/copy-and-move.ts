import {
  constants,
  copyFile,
  cp,
  link,
  lstat,
  readdir,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  unlink,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, fromSystemError } from '../core/errors.ts';
import { removeFile, syncFile } from './durable-file.ts';
import { syncFolder } from './folders.ts';

/** Errnos of a hard link that cannot be made although a copy can. */
const linkRefusals: ReadonlySet<string> = new Set([
  'EXDEV',
  'EPERM',
  'EMLINK',
  'ENOTSUP',
  'ENOSYS',
  'EACCES',
]);

/**
 * Makes a hard link to a file, or a durable copy through `temporaryPath` if no link can be made. An existing target of
 * the same size is taken for the same file; any other is replaced atomically. The caller syncs the target's folder.
 * @throws FiletrackerError of the disk; ENOENT of the source as a system error.
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

/**
 * Moves a file to a free path, also on another file system. Durable on return, except for the removal of the name
 * from the source's folder. @throws system errors.
 */
export async function moveFile(source: string, target: string): Promise<void> {
  try {
    await rename(source, target);
  } catch (error) {
    if (errnoOf(error) !== 'EXDEV') throw error;
    if ((await lstat(source)).isSymbolicLink()) await symlink(await readlink(source), target);
    else await copyDurably(source, target);
    await syncFolder(dirname(target));
    await unlink(source);
  }
  await syncFolder(dirname(target));
}

async function copyDurably(source: string, target: string): Promise<void> {
  const temporary = `${target}.temporary`;
  await copyFile(source, temporary);
  await syncFile(temporary);
  await rename(temporary, target);
}

/**
 * Moves a folder to a free path. A source that is a link or a mount stays, empty: an operator has put it there.
 * @throws system errors.
 */
export async function moveFolder(source: string, target: string): Promise<void> {
  if (!(await lstat(source)).isSymbolicLink()) {
    try {
      await rename(source, target);
      await syncFolder(dirname(target));
      return;
    } catch (error) {
      const errno = errnoOf(error) ?? '';
      // EBUSY: the folder is a mount.
      if (errno !== 'EXDEV' && errno !== 'EBUSY') throw error;
    }
  }
  await cp(`${source}/`, target, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
  await syncTree(target);
  await syncFolder(dirname(target));
  for (const name of await readdir(source)) await rm(join(source, name), { recursive: true });
}

async function syncTree(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const path = join(folder, name);
    const stats = await lstat(path);
    if (stats.isDirectory()) await syncTree(path);
    else if (stats.isFile()) await syncFile(path);
  }
  await syncFolder(folder);
}
