import { isUtf8 } from 'node:buffer';
import type { BigIntStats } from 'node:fs';
import { lstat, opendir, stat } from 'node:fs/promises';
import { basename, join, relative, resolve, sep } from 'node:path';
import { errnoOf, FiletrackerError, fromSystemError, messageOf } from '../../core/errors.ts';
import { parseFileName, type FileName } from '../../core/file-name.ts';
import { versionFromNs, type FileVersion } from '../../core/file-version.ts';
import { unfinishedName, isCacheFolder } from '../../fs/folder-marks.ts';

/** A file of a tree as it would be stored, or why it cannot be. */
export type TreeItem =
  | {
      readonly kind: 'file';
      readonly path: string;
      readonly name: FileName;
      readonly version: FileVersion;
      readonly size: number;
    }
  | {
      /** `vanished`: removed after it was listed. */
      readonly kind: 'skipped' | 'refused' | 'vanished';
      readonly path: string;
      readonly reason: string;
    };

/** Whether a file or folder is left out; `relative` is its path from the top of the tree, with slashes. */
export type Excludes = (relative: string, kind: 'file' | 'folder') => boolean;

const excludesNothing: Excludes = () => false;

/**
 * Everything below `files`, a folder or a single file. Names are paths relative to `root`, versions the times of
 * modification, rounded down to a second. `files` itself may be a symbolic link. Other links, special files, caches of
 * clients and unfinished downloads are skipped and reported; what `excludes` matches is left out without a word.
 * @throws FiletrackerError `not-found`, `invalid-argument` if `files` is not below `root`.
 */
export async function* treeItems(
  files: string,
  root: string,
  excludes = excludesNothing,
): AsyncGenerator<TreeItem, void, void> {
  const start = resolve(files);
  const base = resolve(root);
  if (start !== base && !start.startsWith(base.endsWith(sep) ? base : base + sep)) {
    throw new FiletrackerError('invalid-argument', `Cannot use --root "${root}": "${files}" is not in it`);
  }
  const stats = await stat(start, { bigint: true }).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw fromSystemError(error, `read "${files}"`);
    throw new FiletrackerError('not-found', `Cannot read "${files}": there is no such file or folder`);
  });
  if (!stats.isDirectory()) {
    if (excludes(basename(start), 'file')) return;
    yield itemOf(start, start === base ? join(base, '..') : base, stats);
    return;
  }
  if (isCacheFolder(start)) {
    throw new FiletrackerError('invalid-argument', `Cannot read "${files}": it is the cache of a client`);
  }
  const isExcluded: Excludes = (path, kind) => excludes(relative(start, path).split(sep).join('/'), kind);
  yield* itemsBelow(start, base, excludes === excludesNothing ? excludesNothing : isExcluded);
}

async function* itemsBelow(
  folder: string,
  base: string,
  isExcluded: Excludes,
): AsyncGenerator<TreeItem, void, void> {
  const items = await opendir(folder, { encoding: 'buffer' as BufferEncoding, bufferSize: 256 }).catch(
    (error: unknown) => errnoOf(error) ?? messageOf(error),
  );
  if (typeof items === 'string') {
    yield items === 'ENOENT'
      ? { kind: 'vanished', path: folder, reason: vanishedReason }
      : { kind: 'refused', path: folder, reason: `the folder cannot be read (${items})` };
    return;
  }
  for await (const item of items) {
    const bytes = item.name as unknown as Buffer;
    const name = bytes.toString();
    const path = join(folder, name);
    if (isExcluded(path, item.isDirectory() ? 'folder' : 'file')) continue;
    if (!isUtf8(bytes)) yield { kind: 'refused', path, reason: 'its name is not valid UTF-8' };
    else if (!item.isDirectory()) yield await itemAt(path, name, base);
    else if (isCacheFolder(path)) yield { kind: 'skipped', path, reason: 'it is the cache of a client' };
    else yield* itemsBelow(path, base, isExcluded);
  }
}

const vanishedReason = 'it was removed meanwhile';

async function itemAt(path: string, name: string, base: string): Promise<TreeItem> {
  if (unfinishedName.test(name)) return { kind: 'skipped', path, reason: 'it is an unfinished download' };
  try {
    return itemOf(path, base, await lstat(path, { bigint: true }));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return { kind: 'vanished', path, reason: vanishedReason };
    return { kind: 'refused', path, reason: messageOf(error) };
  }
}

function itemOf(path: string, base: string, stats: BigIntStats): TreeItem {
  if (stats.isSymbolicLink()) return { kind: 'skipped', path, reason: 'it is a symbolic link' };
  if (!stats.isFile()) return { kind: 'skipped', path, reason: 'it is not a regular file' };
  try {
    const name = parseFileName(`/${relative(base, path).split(sep).join('/')}`);
    return { kind: 'file', path, name, version: versionFromNs(stats.mtimeNs), size: Number(stats.size) };
  } catch (error) {
    return { kind: 'refused', path, reason: messageOf(error) };
  }
}

/** Whether a file that was listed no longer exists. */
export async function hasVanished(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => false,
    (error: unknown) => errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR',
  );
}
