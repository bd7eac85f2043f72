import { mkdirSync, statfsSync, statSync } from 'node:fs';
import { open, readdir, realpath, stat } from 'node:fs/promises';
import { homedir, userInfo } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf, fromSystemError } from '../core/errors.ts';

/** The mode of folders of a store: private to its owner. */
export const privateFolderMode = 0o700;

/** The user's home folder; `undefined` if neither HOME nor the password file names one, as in many containers. */
export function homeFolder(): string | undefined {
  for (const look of [homedir, () => userInfo().homedir]) {
    try {
      const folder = look();
      if (folder !== '') return folder;
    } catch {
      // The user has no entry.
    }
  }
  return undefined;
}

/**
 * The result of work on a path; `undefined` if nothing is there (ENOENT), or for one more errno. `action` completes
 * "Cannot …". @throws FiletrackerError of the disk.
 */
export async function unlessMissing<Result>(
  work: Promise<Result>,
  action: string,
  alsoMissing?: 'ENOTDIR',
): Promise<Result | undefined> {
  try {
    return await work;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || (errno !== undefined && errno === alsoMissing)) return undefined;
    throw fromSystemError(error, action);
  }
}

/** Whether anything is at a path. `action` completes "Cannot …". @throws FiletrackerError if the disk cannot say. */
export async function exists(path: string, action: string): Promise<boolean> {
  return (await unlessMissing(stat(path), action)) !== undefined;
}

/**
 * The names in a folder, sorted; `undefined` if the folder is missing. `action` completes "Cannot …".
 * @throws FiletrackerError of the disk.
 */
export async function namesIn(folder: string, action = `read "${folder}"`): Promise<string[] | undefined> {
  return (await unlessMissing(readdir(folder), action))?.sort();
}

/** Makes the names in a folder durable: every creation, renaming and removal in it. @throws FiletrackerError of the disk. */
export async function syncFolder(path: string): Promise<void> {
  try {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fromSystemError(error, 'sync a folder');
  }
}

/**
 * Creates a folder and its missing parents one by one: Node's own `recursive` never ends on a file system that allows
 * no folders and reports ENOENT, such as /proc. Returns the created folders, topmost first.
 * @throws system errors, EEXIST or ENOTDIR if a file is in the way.
 */
export function makeFolders(path: string, mode?: number): readonly string[] {
  const missing: string[] = [];
  for (let folder = resolve(path); !isFolder(folder); folder = dirname(folder)) {
    missing.unshift(folder);
    if (folder === dirname(folder)) break;
  }
  return missing.filter((folder) => {
    try {
      mkdirSync(folder, mode);
      return true;
    } catch (error) {
      // Another process may have been faster.
      if (errnoOf(error) !== 'EEXIST' || !isFolder(folder)) throw error;
      return false;
    }
  });
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/**
 * As `makeFolders`, and makes the created folders durable. Returns whether this call created the folder itself: another
 * process that created it may not have synced it yet. @throws FiletrackerError of the disk.
 */
export async function makeFolderDurably(path: string, mode?: number): Promise<boolean> {
  let made: readonly string[];
  try {
    made = makeFolders(path, mode);
  } catch (error) {
    throw fromSystemError(error, 'create a folder');
  }
  for (const folder of made) await syncFolder(dirname(folder));
  return made.at(-1) === resolve(path);
}

/** A path without symbolic links; its end need not exist. @throws FiletrackerError of the disk. */
export async function realPathOf(path: string): Promise<string> {
  const whole = resolve(path);
  try {
    return await realpath(whole);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' || whole === dirname(whole))
      throw fromSystemError(error, `look at "${path}"`);
    return join(await realPathOf(dirname(whole)), basename(whole));
  }
}

/** A file system with less than this free counts as full: LMDB writes several pages at a time, and needs all of them. */
const fullBelowBytes = 256 * 1024;

/** Whether the file system of a folder is full; for failures without a clear code, such as a short write. */
export function isFull(path: string): boolean {
  return freeBytes(path) < fullBelowBytes;
}

/** Bytes of a file system that this process may still use. */
export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
