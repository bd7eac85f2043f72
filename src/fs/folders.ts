import { mkdirSync, statfsSync, statSync } from 'node:fs';
import { mkdir, open, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf, fromSystemError } from '../core/errors.ts';

/** Of folders that hold a store or a part of it: what is in them is nobody else's, unless their owner opens them. */
export const privateFolderMode = 0o700;

/** Makes the names in a folder durable: what was created, renamed or removed in it. */
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
 * Creates a folder and those above it that are missing, one by one: Node's own `recursive` asks for ever where the
 * file system takes no folders and says ENOENT, as /proc does. Gives those that it made, the topmost first.
 * @throws the system's error, EEXIST where something else has the name.
 */
export async function makeFolders(path: string, mode?: number): Promise<readonly string[]> {
  const missing: string[] = [];
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    if (await isThere(folder)) break;
    missing.unshift(folder);
    if (folder === dirname(folder)) break;
  }
  const made: string[] = [];
  for (const folder of missing) {
    try {
      await mkdir(folder, mode);
      made.push(folder);
    } catch (error) {
      // Another process was faster.
      if (errnoOf(error) !== 'EEXIST' || !(await isThere(folder))) throw error;
    }
  }
  return made;
}

/** Whether a folder is there. @throws the system's error, EEXIST where it is something else. */
async function isThere(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  throw Object.assign(new Error(`EEXIST: it is not a folder, "${path}"`), { code: 'EEXIST' });
}

/** As `makeFolders`, in one go. */
export function makeFoldersSync(path: string, mode?: number): readonly string[] {
  const missing: string[] = [];
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    // A file among them is told of by mkdir, as ENOTDIR or EEXIST.
    if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) break;
    missing.unshift(folder);
    if (folder === dirname(folder)) break;
  }
  const made: string[] = [];
  for (const folder of missing) {
    try {
      mkdirSync(folder, mode);
      made.push(folder);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST' || !statSync(folder).isDirectory()) throw error;
    }
  }
  return made;
}

/**
 * Creates a folder and those above it that are missing, each that this call creates durable when the
 * promise resolves. Gives whether the folder itself was created by this call: where it was there already,
 * whoever created it may not have synced it yet.
 */
export async function makeFolderDurably(path: string, mode?: number): Promise<boolean> {
  let made: readonly string[];
  try {
    made = await makeFolders(path, mode);
  } catch (error) {
    throw fromSystemError(error, 'create a folder');
  }
  for (const folder of made) await syncFolder(dirname(folder));
  return made.at(-1) === resolve(path);
}

/** A path without symbolic links in it, of which the end need not be there. */
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

/** Less than this free on a file system makes it full: LMDB writes several pages at a time, and needs all of them. */
const fullBelowBytes = 256 * 1024;

/** Whether the file system of a folder is full; for failures whose own code does not tell, such as a short write. */
export function isFull(path: string): boolean {
  return freeBytes(path) < fullBelowBytes;
}

/** Bytes that the file system of a file or folder has left for this process. */
export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}
