import { copyFile, cp, lstat, readdir, readlink, rename, rm, symlink, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf } from '../core/errors.ts';
import { syncFolder } from './folders.ts';
import { syncFile } from './sync-file.ts';

/**
 * Moves a file to a path where nothing is, on another file system too. Durable on return, but for the name that is
 * gone from the source's folder. @throws system errors as they come.
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
 * Moves a folder to a path where nothing is. One that is a link or a mount stays, empty: an operator has put it there.
 * @throws system errors as they come.
 */
export async function moveFolder(source: string, target: string): Promise<void> {
  if (!(await lstat(source)).isSymbolicLink()) {
    try {
      await rename(source, target);
      await syncFolder(dirname(target));
      return;
    } catch (error) {
      const errno = errnoOf(error) ?? '';
      // EBUSY: it is a mount.
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
